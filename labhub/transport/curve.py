"""CURVE keys: where they are, and that nobody else can read them."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import zmq
from zmq.utils import z85

from labhub.errors import AuthenticationError, InvalidArgument
from labhub.exhausted import raise_if_exhausted
from labhub.private import private_directory

SERVER_KEY = "server.key"
CLIENT_KEY = "client.key"
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
    if isinstance(text, str) and is_key(text):
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
    SegmentAccessError, SegmentSpaceError
        If so it is with its directory; if there is no room to make the key, or no file can be opened.
    """
    path = private_directory(data_directory()) / name
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
        return _read(path)


def read_key(name: str) -> KeyPair:
    """Return a persistent key that is there already; as `load_key`, but nothing is made.

    Raises
    ------
    FileNotFoundError
        There is none.
    AuthenticationError
        As `load_key`.
    """
    return _read(data_directory() / name)


def _create(path: Path) -> None:
    """Write a new pair under a temporary name and link it: nobody ever sees half a file, and the first one wins."""
    pair = KeyPair.random()
    while True:
        temporary = write_private(path, f"{pair.public}\n{pair.secret}\n")
        try:
            os.link(temporary.path, path)
        except FileExistsError:
            return
        except FileNotFoundError:  # swept away between its making and its lock
            continue
        finally:
            temporary.discard()
        return


@dataclass(frozen=True)
class Temporary:
    """A private file under a temporary name, locked (`flock`) while its maker lives, so that an orphan can be told."""

    path: Path
    descriptor: int

    def discard(self) -> None:
        """Remove the temporary name, if it is still there."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def write_private(path: Path, text: str) -> Temporary:
    """Write a file of mode 0600 beside `path`, complete and on disk, to be linked or renamed to it.

    Raises
    ------
    SegmentSpaceError
        If it does not fit; nothing is left then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        return _write(temporary, text)
    except OSError as error:
        raise_if_exhausted(error, f"cannot write {path}")
        raise


def _write(temporary: Path, text: str) -> Temporary:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    made = Temporary(temporary, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with os.fdopen(descriptor, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        os.fsync(descriptor)
    except BaseException:
        made.discard()
        raise
    return made


def _read(path: Path) -> KeyPair:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise_if_exhausted(error, f"the key file {path} cannot be read")
        raise AuthenticationError(f"the key file {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise AuthenticationError(f"the key file {path} is not a regular file; remove it")
        if status.st_uid != os.geteuid():
            raise AuthenticationError(f"the key file {path} belongs to uid {status.st_uid}, not to you; remove it")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise AuthenticationError(f"the key file {path} can be read by others; run: chmod 600 '{path}'")
        pair = _pair_in(file.read(200))
    if pair is None:
        raise AuthenticationError(f"the key file {path} holds no key pair; remove it to get a new one")
    return pair


def _pair_in(text: str) -> KeyPair | None:
    """Parse a key file, in a frame of its own: a verbose traceback of the refusal would show what is in it."""
    words = text.split()
    return KeyPair(*words) if len(words) == 2 and is_pair(*words) else None


def is_key(text: str) -> bool:
    """Whether a text is 40 characters of z85, as a CURVE key is."""
    if len(text) != Z85_LENGTH or not text.isascii():
        return False
    try:
        z85.decode(text.encode())
    except (ValueError, KeyError, struct.error):  # struct.error: five characters above 32 bits, such as "#####"
        return False
    return True


def is_pair(public: str, secret: str) -> bool:
    """Whether two texts are a public key and the secret key that belongs to it."""
    return is_key(public) and is_key(secret) and zmq.curve_public(secret.encode()).decode() == public
