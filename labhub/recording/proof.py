"""The manifest of a store: the BLAKE3 of each chunk, signed with Ed25519 at each commit.

``manifest.jsonl`` has one JSON object per line. A line ``{"chunk", "blake3", "nbytes"}`` stands there before its chunk
does; with ``null`` for both it takes the last such line back, because the chunk could not be written. A line
``{"commit", "root", "blake3", "signature", ...}`` makes everything before it count: `root` is the BLAKE3 of the
``zarr.json`` that is then put in place, `blake3` that of all lines before this one, and the signature is that of the
line without it.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import nacl.exceptions
from nacl.signing import SigningKey, VerifyKey

from labhub.errors import DamagedStore
from labhub.transport.curve import CLIENT_KEY, load_key

MANIFEST = "manifest.jsonl"
ROOT = "zarr.json"
ROOT_DAMAGED = f"{ROOT}: is not the one that was signed"
PURPOSE = "labhub 2026 recording signature"
"""Context of BLAKE3's key derivation (section 2.3 of its paper): the signature key is of use for nothing else."""


def signing_key() -> SigningKey:
    """Return this user's Ed25519 key: derived from the client key, so that ``labhub key export`` carries it along."""
    secret = load_key(CLIENT_KEY).secret.encode()
    return SigningKey(blake3.blake3(secret, derive_key_context=PURPOSE).digest())


class Manifest:
    """The manifest of a store that is being written.

    Parameters
    ----------
    store : Path
        The store; it has no manifest yet.
    key : SigningKey
        Signs each commit.
    """

    def __init__(self, store: Path, key: SigningKey) -> None:
        self._path = store / MANIFEST
        self._file = self._path.open("xb", buffering=0)
        self._key = key
        self._hash = blake3.blake3()
        self._commits = 0
        self._sizes: dict[str, int] = {}
        self._failed: list[str] = []
        self.nbytes = 0

    def chunk(self, key: str, data: Any) -> None:
        """Note a chunk that is about to be written, perhaps anew."""
        self.nbytes += len(data) - self._sizes.get(key, 0)
        self._sizes[key] = len(data)
        self._append({"chunk": key, "blake3": blake3.blake3(data).hexdigest(), "nbytes": len(data)})

    def take_back(self, key: str) -> None:
        """Say that a chunk could not be written after all; it is noted with the next commit, which may have space."""
        self._failed.append(key)

    def commit(self, root: bytes, **facts: object) -> None:
        """Sign everything so far, together with the root metadata that is about to be put in place."""
        while self._failed:
            self._append({"chunk": self._failed[-1], "blake3": None, "nbytes": None})
            self._failed.pop()
        body = {
            "commit": self._commits,
            "root": blake3.blake3(root).hexdigest(),
            "blake3": self._hash.hexdigest(),
            "public_key": self._key.verify_key.encode().hex(),
            **facts,
        }
        signature = self._key.sign(_canonical(body)).signature.hex()
        self._append({**body, "signature": signature})
        self._commits += 1

    @property
    def in_place(self) -> bool:
        """Whether it is still found in its store: not if that was removed, moved or replaced meanwhile."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        self._file.close()

    def _append(self, line: dict[str, object]) -> None:
        text = _canonical(line) + b"\n"
        end = self._file.tell()
        try:
            if self._file.write(text) != len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), MANIFEST)
        except OSError:
            self._file.seek(end)
            self._file.truncate()
            raise
        self._hash.update(text)


@dataclass(frozen=True)
class Proof:
    """What `verify` found.

    Attributes
    ----------
    path : Path
        The store.
    complete : bool
        Whether it was closed in order; False if the recorder was killed. What was committed before is proven all the
        same.
    public_key : str
        Who signed it (Ed25519, hex).
    own : bool
        Whether that is this user.
    n_chunks, nbytes : int
        Chunks that were compared with the manifest, and their size (in bytes).
    damaged : tuple of str
        What is wrong: one line for each chunk or file, beginning with its name.
    """

    path: Path
    complete: bool
    public_key: str
    own: bool
    n_chunks: int
    nbytes: int
    damaged: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything that was committed is there, unchanged."""
        return not self.damaged

    def __bool__(self) -> bool:
        return self.good


@dataclass
class _Read:
    """What the manifest says, as it is read from the first line to the last."""

    chunks: dict[str, set[str]] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    complete: bool = False
    damaged: list[str] = field(default_factory=list)


def verify(store: str | Path, public_key: str | None = None) -> Proof:
    """Prove that a recording is what was recorded, or name what was damaged.

    Parameters
    ----------
    store : path
        The store.
    public_key : str, optional
        Who must have signed it (Ed25519, hex); whoever did unless given.

    Returns
    -------
    Proof
        True if nothing is damaged.

    Raises
    ------
    NotARecording
        There is no recording at that path.
    DamagedStore
        The manifest itself is damaged, or signed by somebody else.
    """
    from labhub.recording.reading import check_ours

    path = check_ours(store)
    read = _read_manifest(path)
    if len(read.keys) != 1:
        raise DamagedStore(f"{path}: its manifest is signed by {len(read.keys)} keys instead of one", path=str(path))
    (signer,) = read.keys
    if public_key is not None and signer != str(public_key).lower():
        raise DamagedStore(f"{path} is signed by {signer}, not by {public_key}", path=str(path))
    nbytes = 0
    for key, hashes in read.chunks.items():
        nbytes += _compare(path, key, hashes, read.damaged)
    if not _root_is_signed(path, read):
        read.damaged.append(ROOT_DAMAGED)
    own = signer == signing_key().verify_key.encode().hex()
    return Proof(path, read.complete, signer, own, len(read.chunks), nbytes, tuple(sorted(read.damaged)))


def signed_chunks(path: Path) -> dict[str, set[str]]:
    """Return the BLAKE3 that each chunk of a recording may have; two where it was being rewritten at a sudden end.

    Raises
    ------
    DamagedStore
        The manifest or the root metadata are not what was signed.
    """
    read = _read_manifest(path)
    if not _root_is_signed(path, read):
        raise DamagedStore(f"{path}: {ROOT_DAMAGED}", path=str(path))
    return read.chunks


def _root_is_signed(path: Path, read: _Read) -> bool:
    root = blake3.blake3((path / ROOT).read_bytes()).hexdigest()
    # Killed between the signature and the renaming, a store still has the root of the commit before.
    return root in (read.roots[-1:] if read.complete else read.roots[-2:])


def _read_manifest(path: Path) -> _Read:
    read, running = _Read(), blake3.blake3()
    pending: dict[str, list[str]] = {}
    lines = (path / MANIFEST).read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if "chunk" in entry:
                _note(pending.setdefault(str(entry["chunk"]), []), entry["blake3"])
            else:
                _check_commit(entry, running.hexdigest())
                read.chunks |= {key: {hashes[-1]} for key, hashes in pending.items() if hashes}
                pending = {}
                read.roots.append(str(entry["root"]))
                read.keys.add(str(entry["public_key"]))
                read.complete = bool(entry.get("final"))
        except (ValueError, KeyError, TypeError, AttributeError, nacl.exceptions.BadSignatureError) as error:
            if number == len(lines) and not line.endswith(b"\n"):
                break  # the recorder was killed, or its disk full, in the middle of this line
            raise DamagedStore(f"{path / MANIFEST}, line {number}: {error or 'is damaged'}", path=str(path)) from None
        running.update(line)
    if not read.roots:
        raise DamagedStore(f"{path / MANIFEST} holds no signed commit", path=str(path))
    # A chunk that was being written anew when the recorder died may hold either.
    for key, hashes in pending.items():
        if key in read.chunks:
            read.chunks[key].update(hashes)
    return read


def _note(hashes: list[str], new: str | None) -> None:
    """Note what a chunk is to become, or that it did not."""
    if new is not None:
        hashes.append(str(new))
    elif not hashes:
        raise ValueError("takes back a chunk that was not announced")
    else:
        hashes.pop()


def _check_commit(entry: dict[str, Any], before: str) -> None:
    body = {key: value for key, value in entry.items() if key != "signature"}
    if body["blake3"] != before:
        raise ValueError("does not follow from the lines before it")
    VerifyKey(bytes.fromhex(body["public_key"])).verify(_canonical(body), bytes.fromhex(entry["signature"]))


def _compare(path: Path, key: str, hashes: set[str], damaged: list[str]) -> int:
    """Compare one chunk with its hashes; return its size."""
    try:
        data = (path / key).read_bytes()
    except OSError as error:
        damaged.append(f"{key}: {error.strerror}")
        return 0
    if blake3.blake3(data).hexdigest() not in hashes:
        damaged.append(f"{key}: was changed after it had been recorded")
    return len(data)


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
