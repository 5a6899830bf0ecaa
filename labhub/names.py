"""What may name a channel, a segment or a broker. It becomes a file name, so the rule is strict."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from labhub.errors import InvalidName

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def check_name(name: object, what: str = "channel") -> str:
    """Return `name` if it can name a channel, a segment or a broker.

    Raises
    ------
    InvalidName
        Otherwise.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        shown = ascii(name) if len(ascii(name)) < 80 else ascii(name)[:76] + "..."
        raise InvalidName(
            f"{shown} cannot name a {what}: use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or a digit",
            name=name,
        )
    return name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for somebody who mistyped: the closest of the known names, or all of them; empty if none is."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, n=3):
        return f"did you mean {' or '.join(close)}?"
    return f"there are {', '.join(names[:8])}{' ...' if names[8:] else ''}" if names else ""
