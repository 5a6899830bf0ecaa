"""Key files: whole, private, and whose."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from labhub.doctor.finding import Finding, command, dead, examined
from labhub.errors import AuthenticationError
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, data_directory, is_key, read_key
from labhub.transport.enrolled import ENROLLED
from labhub.transport.keys import enrolled_keys

CHECK = "keys"


def examine_keys() -> Iterator[Finding]:
    """Look at the key files; no secret gets into a finding."""
    for name in (CLIENT_KEY, SERVER_KEY):
        yield from examined(CHECK, data_directory() / name, _key(name))
    yield from examined(CHECK, data_directory() / ENROLLED, _enrolled())
    for path in _temporaries():
        if _orphaned(path, unlink=False):
            yield dead("temporaries", path, "a key file whose maker died", partial(_orphaned, path, unlink=True))


def _key(name: str) -> Iterator[Finding]:
    path = data_directory() / name
    try:
        yield Finding(CHECK, "ok", str(path), f"public key {read_key(name).public}")
    except FileNotFoundError:
        yield Finding(CHECK, "ok", str(path), "not made yet")
    except AuthenticationError as error:
        yield Finding(CHECK, "problem", str(path), str(error), _way_out(path))


def _way_out(path: Path) -> str:
    """Private again if that is all that is wrong with it, else out of the way: never lose a key to a typing error."""
    status = path.lstat()
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if ours and stat.S_IMODE(status.st_mode) & 0o077:
        return command("chmod", "600", path)
    return command("mv", path, path.with_name(f"{path.name}.broken"))


def _enrolled() -> Iterator[Finding]:
    path = data_directory() / ENROLLED
    try:
        keys = enrolled_keys()
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except AuthenticationError as error:
        what = f"{error}; until then nobody in it is let in"
        yield Finding(CHECK, "problem", str(path), what, _way_out(path))
        return
    except OSError as error:
        yield Finding(CHECK, "problem", str(path), f"cannot be read: {error.strerror}")
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#") and not is_key(line.split()[0]):
            yield Finding(CHECK, "note", str(path), f"line {number} begins with no key, so it lets nobody in")
    yield Finding(CHECK, "ok", str(path), f"{len(keys)} enrolled")


def _temporaries() -> list[Path]:
    names = (CLIENT_KEY, SERVER_KEY, ENROLLED)
    return sorted(path for name in names for path in data_directory().glob(f".{name}.*.*"))


def _orphaned(path: Path, *, unlink: bool) -> bool:
    """Whether the maker of a temporary file is dead, so that its lock can be had; then, if wanted, unlink it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.lstat()):
            return False
        if unlink:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
