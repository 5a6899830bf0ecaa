"""The list of all files of a store, in the format of ``b3sum``: whoever has that tool needs no labhub to check a store.

``b3sum --check b3sums.txt``, inside the store. A line is the BLAKE3 in hex, two blanks, and the name. A name with a
backslash or a line break in it has these escaped, and the line begins with a backslash.
"""

from __future__ import annotations

from collections.abc import Mapping

SUMS = "b3sums.txt"


def listed(files: Mapping[str, str]) -> bytes:
    """Return the list of files with their BLAKE3 (hex), in the order of their names."""
    return "".join(_line(name, files[name]) for name in sorted(files)).encode()


def _line(name: str, digest: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"
