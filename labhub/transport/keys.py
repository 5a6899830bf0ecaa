"""What a user does with keys: let others in and out, and carry the own key to another machine."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.pwhash
import nacl.secret
import nacl.utils

from labhub.errors import AuthenticationError, InvalidArgument, LabHubError
from labhub.names import check_name
from labhub.private import private_directory
from labhub.transport.curve import (
    CLIENT_KEY,
    KeyPair,
    Temporary,
    check_public_key,
    data_directory,
    is_pair,
    load_key,
    read_key,
    write_private,
)
from labhub.transport.enrolled import ENROLLED, NAME_MARK, EnrolledKey, parse_enrolled

FORMAT = "labhub-key"
VERSION = 1
KDF = "argon2id13"
OPSLIMIT = nacl.pwhash.argon2id.OPSLIMIT_MODERATE
MEMLIMIT = nacl.pwhash.argon2id.MEMLIMIT_MODERATE
# What a file may ask of us, before anything in it is known to be genuine.
MOST_OPSLIMIT = 32
MOST_MEMLIMIT = 1 << 30
MOST_FILE_NBYTES = 16 * 1024
SHORTEST_PASSPHRASE = 8
LONGEST_COMMENT = 200


def enrolled_keys() -> list[EnrolledKey]:
    """Return the clients that are let in besides this user, in the order of the file.

    Raises
    ------
    AuthenticationError
        The file belongs to somebody else, is a symbolic link, or can be written by others.
    """
    return parse_enrolled(_enrolled_text())


def enroll(key: str, comment: str = "", name: str = "") -> bool:
    """Let a client in. A running broker notices with the next request.

    Parameters
    ----------
    key : str
        Its public key (z85), as ``labhub key show`` prints it there.
    comment : str
        Whose it is; one line.
    name : str
        What access rules are to call it; that of no other enrolled key. A key that was enrolled before gets it, too.

    Returns
    -------
    bool
        False if it was enrolled before; then nothing but its name is changed.

    Raises
    ------
    InvalidArgument
        That is no public key, the comment is too long or looks like a name, or another key has the name.
    InvalidName
        The name cannot be one.
    AuthenticationError
        As `enrolled_keys`.
    """
    check_public_key(key)
    if name:
        check_name(name, "key")
    note = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
    if len(note) > LONGEST_COMMENT:
        raise InvalidArgument(f"a comment has at most {LONGEST_COMMENT} characters, this one {len(note)}")
    if note.startswith(NAME_MARK):
        raise InvalidArgument(f"a comment does not begin with {NAME_MARK}, which stands before a name")
    with _data_locked():
        text = _enrolled_text()
        known = {entry.key: entry for entry in parse_enrolled(text)}
        for entry in known.values():
            if name and entry.name == name and entry.key != key:
                raise InvalidArgument(f"another key is enrolled as {name!r}; revoke that one, or give another name")
        if key not in known:
            _write_enrolled([*text.splitlines(), EnrolledKey(key, note, name).line])
        elif name:
            renamed = EnrolledKey(key, known[key].comment, name).line
            _write_enrolled([renamed if _is_of(line, key) else line for line in text.splitlines()])
    return key not in known


def revoke(key: str) -> EnrolledKey:
    """Let a client in no longer. A running broker refuses its next request.

    Parameters
    ----------
    key : str
        Its name, its public key, or as many first characters of that as no other enrolled key has.

    Returns
    -------
    EnrolledKey
        What was taken out.

    Raises
    ------
    InvalidArgument
        No enrolled key is called or begins so, or more than one begins so.
    AuthenticationError
        As `enrolled_keys`.
    """
    with _data_locked():
        text = _enrolled_text()
        enrolled = {entry.key: entry for entry in parse_enrolled(text) if key}
        found = [entry for entry in enrolled.values() if entry.name == key]
        found = found or [entry for entry in enrolled.values() if entry.key.startswith(key)]
        if len(found) != 1:
            many = f"{len(found)} enrolled keys begin with {key!r}; give more of it"
            raise InvalidArgument(many if found else f"no enrolled key begins with {key!r}; see: labhub key list")
        (gone,) = found
        _write_enrolled([line for line in text.splitlines() if not _is_of(line, gone.key)])
    return gone


def _is_of(line: str, key: str) -> bool:
    return line.split(maxsplit=1)[:1] == [key]


def _write_enrolled(lines: list[str]) -> None:
    _replace(ENROLLED, "".join(f"{line}\n" for line in lines))


def export_key(path: Path, passphrase: str) -> str:
    """Write this user's client key pair to a new file of mode 0600, protected by a passphrase.

    The file is JSON: a version, the parameters of argon2id, and the pair in a SecretBox (XSalsa20-Poly1305).

    Returns
    -------
    str
        The public key that was exported.

    Raises
    ------
    InvalidArgument
        The passphrase is too short.
    FileExistsError
        There is such a file already.
    """
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise InvalidArgument(f"a passphrase has at least {SHORTEST_PASSPHRASE} characters; several words are best")
    pair = load_key(CLIENT_KEY)
    salt = nacl.utils.random(nacl.pwhash.argon2id.SALTBYTES)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "kdf": KDF,
        "opslimit": OPSLIMIT,
        "memlimit": MEMLIMIT,
        "salt": base64.b64encode(salt).decode(),
        "box": base64.b64encode(_boxed(pair, passphrase, salt)).decode(),
    }
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    return pair.public


def import_key(path: Path, passphrase: str, *, force: bool = False) -> tuple[str, Path | None]:
    """Make the client key pair of an exported file this user's own.

    Parameters
    ----------
    path : Path
        The file that `export_key` wrote.
    passphrase : str
        Its passphrase.
    force : bool
        Replace another key that this user has; the old one is kept beside it under a name with the date.

    Returns
    -------
    (str, Path or None)
        The public key, and where the key that it replaced is now.

    Raises
    ------
    AuthenticationError
        The passphrase is wrong, or the file is damaged or none of ours.
    LabHubError
        There is another key already, and `force` is False.
    """
    pair = _opened(path, passphrase)
    with _data_locked():
        own = data_directory() / CLIENT_KEY
        if not os.path.lexists(own):
            temporary = _written(own, pair)
            try:
                os.link(temporary.path, own)
            finally:
                temporary.discard()
            return pair.public, None
        if _is_own(pair):
            return pair.public, None
        if not force:
            raise LabHubError(f"there is another key already, {own}; --force replaces it and keeps a copy")
        backup = _backup(own)
        temporary = _written(own, pair)
        try:
            os.replace(temporary.path, own)
        finally:
            temporary.discard()
        return pair.public, backup


def _is_own(pair: KeyPair) -> bool:
    try:
        return read_key(CLIENT_KEY) == pair
    except AuthenticationError:
        return False


def _written(own: Path, pair: KeyPair) -> Temporary:
    return write_private(own, f"{pair.public}\n{pair.secret}\n")


def _backup(own: Path) -> Path:
    """Give the file a second name with the date, never one that is taken."""
    day = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    for number in range(1, 1000):
        backup = own.with_name(f"{own.name}.{day}.{number}.bak")
        try:
            os.link(own, backup, follow_symlinks=False)
        except FileExistsError:
            continue
        return backup
    raise LabHubError(f"there are too many backups of {own}; remove some")


def _opened(path: Path, passphrase: str) -> KeyPair:
    """Open an exported file; whatever is wrong with it, one error, without a word of what is inside."""
    with path.open("rb") as file:
        raw = file.read(MOST_FILE_NBYTES + 1)
    try:
        if len(raw) > MOST_FILE_NBYTES:
            raise ValueError("too long")
        document = json.loads(raw)
        if document["format"] != FORMAT or document["kdf"] != KDF:
            raise ValueError("not ours")
        version, opslimit, memlimit = document["version"], document["opslimit"], document["memlimit"]
        salt, box = (base64.b64decode(document[key], validate=True) for key in ("salt", "box"))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuthenticationError(f"{path} is damaged, or is not a file that `labhub key export` wrote") from None
    if version != VERSION:
        raise AuthenticationError(f"{path} has version {version!r}, this labhub reads version {VERSION}; update labhub")
    pair = _unboxed(passphrase, salt, box, opslimit, memlimit)
    if pair is None:
        raise AuthenticationError(f"the passphrase is wrong, or {path} is damaged")
    return pair


def _boxed(pair: KeyPair, passphrase: str, salt: bytes) -> bytes:
    inner = json.dumps({"public": pair.public, "secret": pair.secret}).encode()
    return bytes(_box(passphrase, salt, OPSLIMIT, MEMLIMIT).encrypt(inner))


def _unboxed(passphrase: str, salt: bytes, box: bytes, opslimit: Any, memlimit: Any) -> KeyPair | None:
    """Open the box, in a frame of its own: a verbose traceback of the refusal would show what is inside."""
    try:
        if not (0 < int(opslimit) <= MOST_OPSLIMIT and 0 < int(memlimit) <= MOST_MEMLIMIT):
            return None
        inner = json.loads(_box(passphrase, salt, int(opslimit), int(memlimit)).decrypt(box))
        pair = KeyPair(inner["public"], inner["secret"])
        return pair if is_pair(pair.public, pair.secret) else None
    except (nacl.exceptions.CryptoError, ValueError, KeyError, TypeError):
        return None


def _box(passphrase: str, salt: bytes, opslimit: int, memlimit: int) -> nacl.secret.SecretBox:
    words = passphrase.encode("utf-8", "surrogateescape")
    key = nacl.pwhash.argon2id.kdf(nacl.secret.SecretBox.KEY_SIZE, words, salt, opslimit, memlimit)
    return nacl.secret.SecretBox(key)


@contextmanager
def _data_locked() -> Iterator[None]:
    """Hold the lock of the data directory, so that two commands do not undo each other's change."""
    directory = private_directory(data_directory())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _enrolled_text() -> str:
    path = data_directory() / ENROLLED
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise AuthenticationError(f"{path} is not a regular file of yours; remove it")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise AuthenticationError(f"{path} can be written by others; look at it, then run: chmod 600 '{path}'")
    return path.read_text(encoding="utf-8", errors="replace")


def _replace(name: str, text: str) -> None:
    """Write a file of the data directory anew, whole or not at all."""
    path = data_directory() / name
    temporary = write_private(path, text)
    try:
        os.replace(temporary.path, path)
    finally:
        temporary.discard()
