"""Directories that are this user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from labhub.errors import SegmentAccessError


def private_directory(path: Path) -> Path:
    """Return a directory that is this user's alone; it is made if it is not there.

    Raises
    ------
    SegmentAccessError
        It belongs to somebody else, is a symbolic link or no directory, is open to others, or cannot be made.
    """
    try:
        if not path.is_symlink():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise SegmentAccessError(f"{path} cannot be used: {error.strerror}", path=str(path)) from None
    if not stat.S_ISDIR(status.st_mode):
        why = "is a symbolic link or no directory, and others could turn it elsewhere; name the directory itself"
    elif status.st_uid != os.geteuid():
        why = f"belongs to uid {status.st_uid}, not to you (uid {os.geteuid()}); name a directory of yours"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        why = f"must be yours alone; run: chmod 700 '{path}'"
    else:
        return path
    raise SegmentAccessError(f"{path} {why}", path=str(path))
