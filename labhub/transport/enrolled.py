"""Which clients are let in besides this user's own, and what they are called."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import asdict, dataclass

from labhub.logs import event
from labhub.names import NAME
from labhub.transport.curve import data_directory, is_key

logger = logging.getLogger(__name__)

ENROLLED = "enrolled.keys"
NAME_MARK = "@"
"""What a name begins with in the file, so that it is told from a comment."""


@dataclass(frozen=True)
class EnrolledKey:
    """A client that is let in.

    Attributes
    ----------
    key : str
        Its public key (z85).
    comment : str
        What was noted about it.
    name : str
        What the access rules call it; empty if it has no name.
    """

    key: str
    comment: str = ""
    name: str = ""

    @property
    def line(self) -> str:
        """What stands in the file."""
        return " ".join(filter(None, (self.key, self.name and NAME_MARK + self.name, self.comment)))

    def to_dict(self) -> dict[str, str]:
        """All of it as plain JSON values."""
        return asdict(self)


def parse_enrolled(text: str) -> list[EnrolledKey]:
    """Return what each line says that begins with a key, and then may have a name and a comment; others are notes.

    A note may begin with a #, as no key does: 32 bits in z85 never begin with the last two of its 85 characters.
    """
    words = [line.split(maxsplit=1) for line in text.splitlines()]
    return [_parsed(w[0], w[1].strip() if w[1:] else "") for w in words if w and is_key(w[0])]


def _parsed(key: str, rest: str) -> EnrolledKey:
    first, _, comment = rest.partition(" ")
    if first.startswith(NAME_MARK) and NAME.fullmatch(first.removeprefix(NAME_MARK)):
        return EnrolledKey(key, comment.strip(), first.removeprefix(NAME_MARK))
    return EnrolledKey(key, rest)


class AllowList:
    """Which client keys are let in: this user's own, and those enrolled in a file that is read anew when it changes.

    Parameters
    ----------
    own : str
        The user's own public key; empty for none.
    anybody : bool
        Let everybody in.
    """

    def __init__(self, own: str, *, anybody: bool = False) -> None:
        self._own = own
        self._anybody = anybody
        self._path = data_directory() / ENROLLED
        self._stamp: tuple[int, int, int] | None = None
        self._enrolled: dict[str, str] = {}

    def __contains__(self, key: object) -> bool:
        return self._anybody or (bool(self._own) and key == self._own) or key in self.enrolled()

    def name_of(self, key: str) -> str:
        """Return the name of an enrolled key; empty if it has none, or is not enrolled."""
        return self.enrolled().get(key, "")

    def enrolled(self) -> dict[str, str]:
        """Return the name of each key in the file; see `parse_enrolled`. A link, or what others can write, is not
        believed.
        """
        try:
            status = self._path.lstat()
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            if stamp != self._stamp:
                self._enrolled = self._read()
                self._stamp = stamp
        except OSError as error:
            if self._stamp is not None and not isinstance(error, FileNotFoundError):
                facts = event("allow_list_unread", path=str(self._path), reason=error.strerror)
                logger.error("%s cannot be read: %s; nobody in it is let in", self._path, error.strerror, extra=facts)
            self._stamp, self._enrolled = None, {}
        return self._enrolled

    def _read(self) -> dict[str, str]:
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
                facts = event("allow_list_unsafe", path=str(self._path))
                logger.error(
                    "%s can be written by others, so nobody in it is let in; run: chmod 600 it", self._path, extra=facts
                )
                return {}
            return {entry.key: entry.name for entry in parse_enrolled(file.read())}
