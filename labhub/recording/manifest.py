"""The manifest of a store: the BLAKE3 of each file, signed with Ed25519 at each commit.

``manifest.jsonl`` has one JSON object per line. The first line of version 2 says which recording it is. A line
``{"file", "blake3", "nbytes", "signature"}`` stands there before its file does; with ``null`` for hash and length it
takes the last such line back, because the file could not be written. A line ``{"commit", "root", "blake3",
"signature", ...}`` makes everything before it count: `root` is the BLAKE3 of the ``zarr.json`` that is then put in
place, `blake3` that of all lines before this one, and the signature is that of the line without it. The signature of a
file's line also covers all lines before it, so that it counts at the end of this manifest only.

Version 1 has no first line of that kind, ``chunk`` instead of ``file`` without a signature, and no metadata files.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import nacl.exceptions
from nacl.signing import SigningKey, VerifyKey

from labhub.errors import DamagedStore, NotARecording
from labhub.recording.inside import LARGEST_FILE, check_inside, open_inside, parsed
from labhub.words import quoted

MANIFEST = "manifest.jsonl"
ROOT = "zarr.json"
VERSION = 2
LONGEST_LINE = 64 * 1024
"""Most bytes of a line; one with the longest name, every byte of it escaped, is shorter."""
_ANNOUNCED = b"labhub manifest line\n"
"""Before what the signature of a file's line is of, so that it is never that of a commit, which begins with a brace."""

_WRONG = (
    *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    nacl.exceptions.CryptoError,
)
"""What a line that nobody meant can raise."""


class Manifest:
    """The manifest of a store that is being written.

    Parameters
    ----------
    store : Path
        The store; it has no manifest yet.
    key : SigningKey
        Signs each line.
    facts : dict
        Which recording this is: what its first line says.
    """

    def __init__(self, store: Path, key: SigningKey, facts: dict[str, Any] | None = None) -> None:
        self._path = store / MANIFEST
        self._file = self._path.open("xb", buffering=0)
        self._key = key
        self._hash = blake3.blake3()
        self._commits = 0
        self._files: dict[str, tuple[str, int]] = {}
        self._before: dict[str, tuple[str, int] | None] = {}
        self._failed: list[str] = []
        self.nbytes = 0
        self._retracted = 0, self._hash.copy()
        self._append({"manifest": VERSION, "needs": [], **(facts or {})})

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def announce(self, name: str, data: Any) -> None:
        """Note a file that is about to be written, perhaps anew."""
        digest, nbytes = blake3.blake3(data).hexdigest(), len(data)
        self._append_file(name, digest, nbytes)
        self._before[name] = before = self._files.get(name)
        self._files[name] = digest, nbytes
        self.nbytes += nbytes - (before[1] if before else 0)

    def take_back(self, name: str) -> None:
        """Say that a file could not be written after all; it is noted with the next commit, which may have space."""
        if name not in self._before:
            return  # not even announced
        self._failed.append(name)
        if (before := self._before.pop(name)) is None:
            del self._files[name]
        else:
            self._files[name] = before

    def commit(self, root: bytes, **facts: object) -> None:
        """Sign everything so far, together with the root metadata that is about to be put in place."""
        while self._failed:
            self._append_file(self._failed[-1], None, None)
            self._failed.pop()
        self._retracted = self._file.tell(), self._hash.copy()
        self._append(self._commit_line(root, facts))
        self._commits += 1
        self._before.clear()

    def retract(self) -> None:
        """Take the last commit back: its root metadata could not be put in place."""
        end, self._hash = self._retracted
        self._file.truncate(self._file.seek(end))
        self._commits -= 1

    def sums(self, root: bytes, **facts: object) -> dict[str, str]:
        """Return the BLAKE3 of each file as it will be after a commit, this manifest included.

        Nothing may have failed since the last one.
        """
        running = self._hash.copy()
        running.update(_canonical(self._commit_line(root, facts)) + b"\n")
        files = {name: digest for name, (digest, _) in self._files.items()}
        return files | {ROOT: blake3.blake3(root).hexdigest(), MANIFEST: running.hexdigest()}

    @property
    def failed(self) -> bool:
        """Whether a file could not be written since the last commit."""
        return bool(self._failed)

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

    def _commit_line(self, root: bytes, facts: dict[str, object]) -> dict[str, object]:
        body = {
            "commit": self._commits,
            "root": blake3.blake3(root).hexdigest(),
            "blake3": self._hash.hexdigest(),
            "public_key": self._key.verify_key.encode().hex(),
            **facts,
        }
        return {**body, "signature": self._key.sign(_canonical(body)).signature.hex()}

    def _append_file(self, name: str, digest: str | None, nbytes: int | None) -> None:
        body = {"file": name, "blake3": digest, "nbytes": nbytes}
        signature = self._key.sign(_announced(body, self._hash.hexdigest())).signature.hex()
        self._append({**body, "signature": signature})

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


@dataclass
class Account:
    """What a manifest says.

    Attributes
    ----------
    version : int
    facts : dict
        Which recording it is; empty in version 1.
    files : dict of str to (dict of str to int)
        What each file that counts may be: its BLAKE3, with its length (in bytes). It is more than one where the file
        was being written anew at a sudden end.
    begun : dict of str to (dict of str to int)
        The same of files that were begun behind the last commit, and count for nothing.
    directories : set of str
        In which files were to be.
    roots : list of str
        BLAKE3 of the root metadata, at the last commit and the one before.
    commits : int
    public_key : str
        Who signed it (Ed25519, hex).
    digest : str
        BLAKE3 of the manifest itself.
    complete : bool
        Whether the last commit was that of a recording that was closed in order.
    """

    version: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    begun: dict[str, dict[str, int]] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    roots: list[str] = field(default_factory=list)
    commits: int = 0
    public_key: str = ""
    digest: str = ""
    complete: bool = False

    def root_is_signed(self, root: bytes) -> bool:
        """Whether this is the root metadata of the last commit; or, after a sudden end, of the one before.

        Killed between the signature and the renaming, a store still has the root of the commit before, and is then not
        complete.
        """
        found = blake3.blake3(root).hexdigest()
        if found == self.roots[-1]:
            return True
        self.complete = False
        return found in self.roots[-2:-1]


def read_manifest(store: Path) -> Account:
    """Read the manifest of a store, and check its signatures.

    Raises
    ------
    NotARecording
        It is that of a later version.
    DamagedStore
        It is damaged, or not signed by one key.
    """
    reader = _Reader(store)
    for number, line in enumerate(_lines(store), 1):
        try:
            if not line.endswith(b"\n"):
                if len(line) > LONGEST_LINE:
                    raise ValueError(f"is longer than {LONGEST_LINE} bytes")
                if reader.account.complete:
                    raise ValueError("stands behind the last commit")
                break  # the recorder was killed, or its disk full, in the middle of this line
            reader.take(number, line)
        except NotARecording:
            raise
        except _WRONG as error:
            what = str(error) or "is damaged"
            raise DamagedStore(f"{store / MANIFEST}, line {number}: {what}", path=str(store)) from None
    return reader.result()


def signed(key: VerifyKey, entry: dict[str, Any], message: bytes) -> None:
    """Raise unless an entry has the signature of a message."""
    try:
        key.verify(message, bytes.fromhex(entry["signature"]))
    except nacl.exceptions.BadSignatureError:
        raise ValueError("is not signed by who it says") from None


class _Reader:
    """Takes the lines of a manifest one by one."""

    def __init__(self, store: Path) -> None:
        self.account = Account()
        self._store = store
        self._running = blake3.blake3()
        self._tail: list[tuple[int, dict[str, Any], str]] = []

    def take(self, number: int, line: bytes) -> None:
        entry, before = parsed(line), self._running.hexdigest()
        if not isinstance(entry, dict):
            raise ValueError("is no object")
        if self.account.complete:
            raise ValueError("stands behind the last commit")
        if number == 1 and "manifest" in entry:
            self._begin(entry)
        elif "commit" in entry:
            self._commit(entry, before)
        elif self._named in entry:
            self._tail.append((number, entry, before))
        elif self.account.version == 1 or "manifest" in entry:
            raise ValueError("is of no known kind")
        # What else stands in a later manifest that needs nothing new is signed with the rest, and passed over.
        self._running.update(line)

    @property
    def _named(self) -> str:
        return "file" if self.account.version > 1 else "chunk"

    def _begin(self, entry: dict[str, Any]) -> None:
        if entry["manifest"] != VERSION or entry.get("needs", []) != []:
            needs = f", which needs {quoted(entry['needs'])}" if entry.get("needs") else ""
            what = f"has a manifest of version {quoted(entry['manifest'])}{needs}; this labhub reads versions 1 and 2"
            raise NotARecording(f"{self._store} {what}; update labhub", path=str(self._store))
        self.account.version = VERSION
        self.account.facts = {key: value for key, value in entry.items() if key not in ("manifest", "needs")}

    def _commit(self, entry: dict[str, Any], before: str) -> None:
        body = {key: value for key, value in entry.items() if key != "signature"}
        if body["blake3"] != before:
            raise ValueError("does not follow from the lines before it")
        public_key = str(body["public_key"]).lower()
        signed(VerifyKey(bytes.fromhex(public_key)), entry, _canonical(body))
        account = self.account
        if public_key != (account.public_key or public_key):
            raise ValueError(f"is signed by {public_key}, the lines before it by {account.public_key}")
        account.public_key = public_key
        account.files |= {name: dict([found[-1]]) for name, found in self._pending().items() if found}
        account.roots = [*account.roots[-1:], str(entry["root"])]
        account.commits += 1
        account.complete = bool(entry.get("final"))
        self._tail = []

    def _pending(self) -> dict[str, list[tuple[str, int]]]:
        """Return what the lines since the last commit announce and do not take back."""
        pending: dict[str, list[tuple[str, int]]] = {}
        for _, entry, _ in self._tail:
            name = check_inside(entry[self._named])
            found = pending.setdefault(name, [])
            if entry["blake3"] is not None:
                found.append((str(entry["blake3"]), _length(entry["nbytes"])))
            elif found:
                found.pop()
            else:
                raise ValueError(f"{quoted(name)} is taken back, and was not announced")
            parents = name.split("/")[:-1]
            self.account.directories.update("/".join(parents[:k]) for k in range(1, len(parents) + 1))
        return pending

    def result(self) -> Account:
        account = self.account
        if not account.roots:
            raise DamagedStore(f"{self._store / MANIFEST} holds no signed commit", path=str(self._store))
        try:
            if account.version > 1:
                key = VerifyKey(bytes.fromhex(account.public_key))
                for _, entry, before in self._tail:
                    body = {name: value for name, value in entry.items() if name != "signature"}
                    signed(key, entry, _announced(body, before))
            pending = self._pending()
        except _WRONG as error:
            what = f"{self._store / MANIFEST}: what stands behind its last commit {error}"
            raise DamagedStore(what, path=str(self._store)) from None
        for name, found in pending.items():
            # A file that was being written anew when the recorder died may be either.
            (account.files if name in account.files else account.begun).setdefault(name, {}).update(found)
        account.digest = self._running.hexdigest()
        return account


def _lines(store: Path) -> Iterator[bytes]:
    try:
        with io.BufferedReader(open_inside(store, MANIFEST)) as file:  # type: ignore[type-var]
            while line := file.readline(LONGEST_LINE + 1):
                yield line
    except OSError as error:
        raise DamagedStore(f"{store / MANIFEST}: {error.strerror}", path=str(store)) from None


def _length(nbytes: Any) -> int:
    if not isinstance(nbytes, int) or not 0 <= nbytes <= LARGEST_FILE:
        raise ValueError(f"a file of {quoted(nbytes)} bytes is none of a recording")
    return nbytes


def _announced(body: dict[str, Any], before: str) -> bytes:
    return _ANNOUNCED + before.encode() + _canonical(body)


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
