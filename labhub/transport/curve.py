"""CURVE keys: where they are, that nobody else can read them, and which clients are let in."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import zmq
from zmq.utils import z85

from labhub.errors import AuthenticationError, InvalidArgument

SERVER_KEY = "server.key"
CLIENT_KEY = "client.key"
ENROLLED = "enrolled.keys"
Z85_LENGTH = 40


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, as z85 text of 40 characters each. Its repr never shows the secret."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def random(cls) -> KeyPair:
        """Make a new pair."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


def data_directory() -> Path:
    """Return where keys live: `LABHUB_DATA_DIR`, or the user's data directory."""
    return Path(os.environ.get("LABHUB_DATA_DIR") or platformdirs.user_data_dir("labhub"))


def check_public_key(key: object, what: str = "public key") -> bytes:
    """Return the key as ASCII bytes.

    Raises
    ------
    InvalidArgument
        If it is not 40 characters of z85.
    """
    text = key.decode("ascii", "replace") if isinstance(key, bytes) else key
    if isinstance(text, str) and len(text) == Z85_LENGTH and text.isascii():
        try:
            z85.decode(text.encode())
        except (ValueError, KeyError):
            pass
        else:
            return text.encode()
    raise InvalidArgument(f"the {what} is 40 characters of z85, as the broker prints it at its start, not {key!r}")


def load_key(name: str) -> KeyPair:
    """Return the user's persistent key of that name; it is made on first use.

    Parameters
    ----------
    name : str
        `SERVER_KEY` or `CLIENT_KEY`.

    Raises
    ------
    AuthenticationError
        If the file belongs to somebody else, can be read by others, is a symbolic link, or holds no key.
    """
    path = data_directory() / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
        return _read(path)


def _create(path: Path) -> None:
    """Write a new pair under a temporary name and link it: nobody ever sees half a file, and the first one wins."""
    pair = KeyPair.random()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{pair.public}\n{pair.secret}\n")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        os.unlink(temporary)


def _read(path: Path) -> KeyPair:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AuthenticationError(f"the key file {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor) as file:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise AuthenticationError(f"the key file {path} belongs to uid {status.st_uid}, not to you; remove it")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise AuthenticationError(f"the key file {path} can be read by others; run: chmod 600 '{path}'")
        lines = file.read(200).split()
    if len(lines) != 2 or any(len(line) != Z85_LENGTH for line in lines):
        raise AuthenticationError(f"the key file {path} holds no key pair; remove it to get a new one")
    return KeyPair(*lines)


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
        self._stamp: tuple[int, int] | None = None
        self._enrolled: frozenset[str] = frozenset()

    def __contains__(self, key: object) -> bool:
        return self._anybody or (bool(self._own) and key == self._own) or key in self.enrolled()

    def enrolled(self) -> frozenset[str]:
        """Return the keys in the file: the first word of each line that is not a comment."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                lines = [line.split() for line in self._path.read_text().splitlines()]
                self._enrolled = frozenset(w[0] for w in lines if w and not w[0].startswith("#"))
                self._stamp = stamp
        except OSError:
            self._stamp, self._enrolled = None, frozenset()
        return self._enrolled
