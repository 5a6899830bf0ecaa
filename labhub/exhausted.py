"""What the kernel says when something is full, put in words."""

from __future__ import annotations

import errno

from labhub.errors import SegmentSpaceError

_ROOM = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit on the size of files: ulimit -f",
    errno.EMFILE: "close some files, or raise the limit: ulimit -n",
    errno.ENFILE: "close some files; all of this machine's are in use",
    errno.ENOMEM: "free some memory, or raise the limit: ulimit -v",
}


def raise_if_exhausted(error: OSError, what: str) -> None:
    """Raise `SegmentSpaceError` if this is what the kernel says when something is full; `what` says what failed."""
    if error.errno in _ROOM and not isinstance(error, SegmentSpaceError):
        raise SegmentSpaceError(f"{what}: {error.strerror}; {_ROOM[error.errno]}") from None
