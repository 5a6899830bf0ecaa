"""What a recording proves: that each of its files is what was signed, by whom, and which recording it is."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
from nacl.signing import SigningKey

from labhub.datablock import dates
from labhub.errors import DamagedStore, InvalidArgument, UntrustedSigner
from labhub.recording.inside import LARGEST_JSON, entries, open_inside, parsed, read_inside
from labhub.recording.manifest import MANIFEST, ROOT, Account, read_manifest
from labhub.recording.sums import SUMS, listed
from labhub.telling import Advice
from labhub.transport.curve import CLIENT_KEY, load_key
from labhub.words import quoted

ROOT_DAMAGED = f"{ROOT}: is not the one that was signed"
CHANGED = "was changed after it had been recorded"
ANY = "any"
"""The `key` that takes a recording whoever signed it."""
PURPOSE = "labhub 2026 recording signature"
"""Context of BLAKE3's key derivation (section 2.3 of its paper): the signature key is of use for nothing else."""
RESERVE = ".reserve"
ADDED = ("clock_epochs", "clock_offset_ns", "recording_error")
"""Attributes of a group that the root's metadata have, and in version 1 not the group's own."""
MOST_NAMED = 1000
"""So many damages are named, and the others counted."""
BLOCK = 1024 * 1024
_PARTIAL = re.compile(r"(?:^|/)(?:\.[^/]+|[^/]+\.[0-9a-f]{32})\.partial$")
"""Names under which a file is written before it is renamed, by labhub and by zarr-python."""


def signing_key() -> SigningKey:
    """Return this user's Ed25519 key: derived from the client key, so that ``labhub key export`` carries it along."""
    secret = load_key(CLIENT_KEY).secret.encode()
    return SigningKey(blake3.blake3(secret, derive_key_context=PURPOSE).digest())


@dataclass(frozen=True)
class Proof:
    """What `verify` found.

    Attributes
    ----------
    path : Path
        The store.
    complete : bool
        Whether it was closed in order; False if the recorder was killed, or still records. What was committed before
        is proven all the same.
    public_key : str
        Who signed it (Ed25519, hex).
    own : bool
        Whether that is this user.
    n_chunks : int
        Chunks that were compared with the manifest.
    nbytes : int
        Size of all files that were compared with it, which in version 1 are the chunks (in bytes).
    damaged : tuple of str
        What is wrong: one line for each file, beginning with its name. Files that the manifest does not know are
        among them.
    title : str
        What the recording was called by who made it.
    run_id : str
        The same for all parts of one recording, and for no other; empty in version 1.
    began : str
        When it began, by the clock of the recorder (ISO 8601, UTC).
    part : int
        Which of the stores of a split recording this is, counted from 1.
    commits : int
        How often it was signed.
    n_files : int
        All files that are accounted for, with root metadata, manifest and list of sums.
    version : int
        Of the manifest.
    unfinished : tuple of str
        Files that were on their way when the recorder was killed. They count for nothing, and are not proven.
    """

    path: Path
    complete: bool
    public_key: str
    own: bool
    n_chunks: int
    nbytes: int
    damaged: tuple[str, ...] = ()
    title: str = ""
    run_id: str = ""
    began: str = ""
    part: int = 1
    commits: int = 0
    n_files: int = 0
    version: int = 1
    unfinished: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything that was committed is there, unchanged, and nothing else is."""
        return not self.damaged

    def __bool__(self) -> bool:
        return self.good


def verify(store: str | Path, key: str | None = None, *, public_key: str | None = None) -> Proof:
    """Prove that a recording is what was recorded, or name what was damaged.

    Parameters
    ----------
    store : path
        The store.
    key : str, optional
        Who must have signed it (Ed25519, hex). Unless given, or with ``"any"``, whoever did: compare `Proof.public_key`
        or `Proof.own`.
    public_key : str, optional
        The former name of `key`.

    Returns
    -------
    Proof
        True if nothing is damaged.

    Raises
    ------
    NotARecording
        There is no recording at that path.
    UntrustedSigner
        It is signed by somebody else.
    DamagedStore
        The manifest itself is damaged.
    """
    from labhub.recording.reading import check_ours

    if public_key is not None:
        warnings.warn("verify(public_key=...) is called key= now", DeprecationWarning, stacklevel=2)
    wanted = check_key(key if public_key is None else public_key)
    path = check_ours(store)
    account = read_manifest(path)
    if wanted not in (None, ANY):
        check_signer(path, account, wanted)
    root = read_inside(path, ROOT, LARGEST_JSON)
    damaged = [] if account.root_is_signed(root) else [ROOT_DAMAGED]
    nbytes = sum(_compare(path, name, found, damaged) for name, found in account.files.items())
    known = set(account.files) | {ROOT, MANIFEST}
    if account.version == 1:
        known |= _compare_old_metadata(path, root, account, damaged)
    if account.complete and account.version > 1:
        known.add(SUMS)
        _compare_sums(path, root, account, damaged)
    unfinished = _look_for_others(path, known, account, damaged)
    return _proof(path, account, root, (nbytes, len(known)), damaged, unfinished)


def check_key(key: Any) -> str | None:
    """Return the key of a signer in lower case, `ANY` or None; `InvalidArgument` for anything else."""
    if key is None:
        return None
    text = key.strip().lower() if isinstance(key, str) else ""
    if text == ANY or re.fullmatch(r"[0-9a-f]{64}", text):
        return text
    form = "the signer's key, 64 hex digits as labhub verify shows it, or 'any'"
    raise InvalidArgument(f"key is {form}, not {quoted(key)}")


def check_signer(path: Path, account: Account, key: str | None) -> None:
    """Raise unless a recording is signed by a key; by this user's unless one is given.

    Raises
    ------
    UntrustedSigner
    """
    wanted = key or signing_key().verify_key.encode().hex()
    signer = account.public_key
    if wanted in (ANY, signer):
        return
    if key:
        raise UntrustedSigner(f"{path} is signed by {signer}, not by {key}", path=str(path), signer=signer)
    raise UntrustedSigner(
        f"{path} is signed by {signer}, which is not your key. If that is the key of who recorded it, ",
        advice=Advice(
            f"name it: key={signer!r}; key='any' takes whoever signed it",
            f"name it: --key {signer}; --key any takes whoever signed it",
            f"name it: --key {signer}; --key any takes whoever signed it",
        ),
        path=str(path),
        signer=signer,
    )


def proven(path: Path, name: str, found: dict[str, int]) -> bytes:
    """Read a file of a recording that is one of those that were signed.

    Raises
    ------
    ValueError
        It is another one.
    OSError
        It cannot be read.
    """
    try:
        data = read_inside(path, name, max(found.values(), default=0))
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ValueError(CHANGED if found else "is not in the manifest") from None
        raise
    if blake3.blake3(data).hexdigest() not in found:
        raise ValueError(CHANGED)
    return data


def _compare(path: Path, name: str, found: dict[str, int], damaged: list[str]) -> int:
    """Compare one file with its hashes; return its size."""
    try:
        with open_inside(path, name) as file:
            size = os.fstat(file.fileno()).st_size
            if size not in found.values() or _digest(file, size) not in found:
                damaged.append(f"{name}: {CHANGED}")
            return size
    except OSError as error:
        damaged.append(f"{name}: {error.strerror}")
        return 0


def _digest(file: Any, size: int) -> str:
    """Return the BLAKE3 of an open file, block by block, and of no more than its size was."""
    hashed = blake3.blake3()
    while size >= 0 and (block := file.read(BLOCK)):
        hashed.update(block)
        size -= len(block)
    return hashed.hexdigest()


def _compare_sums(path: Path, root: bytes, account: Account, damaged: list[str]) -> None:
    files = {name: next(iter(found)) for name, found in account.files.items()}
    files |= {ROOT: blake3.blake3(root).hexdigest(), MANIFEST: account.digest}
    expected = listed(files)
    try:
        if read_inside(path, SUMS, len(expected)) != expected:
            damaged.append(f"{SUMS}: {CHANGED}")
    except OSError as error:
        damaged.append(f"{SUMS}: {error.strerror}")


def _look_for_others(path: Path, known: set[str], account: Account, damaged: list[str]) -> list[str]:
    """Name what lies in a store and is not known; return what was on its way when the recorder was killed."""
    unfinished: list[str] = []
    directories = account.directories | {"/".join(name.split("/")[:k]) for name in known for k in _depths(name)}
    for name, regular in _entries(path, directories, damaged):
        if name in known:
            continue
        if not account.complete and regular and _is_unfinished(path, name, account):
            unfinished.append(name)
        else:
            damaged.append(f"{name}: is not in the manifest{'' if regular or name[-1] == '/' else ', and no file'}")
    return unfinished


def _entries(path: Path, directories: set[str], damaged: list[str]) -> Iterator[tuple[str, bool]]:
    try:
        yield from entries(path, directories)
    except OSError as error:
        damaged.append(f"{error.filename if isinstance(error.filename, str) else path.name}: {error.strerror}")


def _depths(name: str) -> range:
    return range(1, name.count("/") + 1)


def _is_unfinished(path: Path, name: str, account: Account) -> bool:
    if name in (RESERVE, SUMS) or _PARTIAL.search(name):
        return True
    if name not in account.begun:
        return False
    wrong: list[str] = []
    _compare(path, name, account.begun[name], wrong)
    return account.version == 1 or not wrong


def _compare_old_metadata(path: Path, root: bytes, account: Account, damaged: list[str]) -> set[str]:
    """Compare the metadata of a store of version 1, whose manifest has only those of the root, with these.

    Returns
    -------
    set of str
        Their names.
    """
    try:
        nodes = dict(parsed(root)["consolidated_metadata"]["metadata"])
        given_up = {name for name, node in nodes.items() if "recording_error" in node["attributes"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        damaged.append(ROOT_DAMAGED)
        return set()
    known = set()
    for node, signed in nodes.items():
        name = f"{node}/{ROOT}"
        known.add(name)
        try:
            found = parsed(read_inside(path, name, LARGEST_JSON))
            if not _was_that(found, signed, account.complete):
                damaged.append(f"{name}: {CHANGED}")
        except OSError as error:
            damaged.append(f"{name}: {error.strerror}")
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged.append(f"{name}: {CHANGED}")
    # Arrays of a channel that ended early were forgotten by the root metadata, and nothing reads them.
    return known | {f"{name}{ROOT}" for name, _ in entries(path, given_up) if name.endswith("/") and "/" in name[:-1]}


def _was_that(found: dict[str, Any], signed: dict[str, Any], complete: bool) -> bool:
    """Whether the metadata of a node, as they were written when it was begun, became those that were signed."""
    first, then = ({**node, "attributes": dict(node["attributes"])} for node in (found, signed))
    for node in first, then:
        if "shape" not in node:
            for name in ADDED:
                node["attributes"].pop(name, None)
        elif not complete:
            node["shape"] = node["shape"][1:]
    if not complete and dates.DTYPE in then["attributes"] and "shape" in then:
        first["attributes"] = then["attributes"]  # they were others until a date came that CF cannot tell
    return first == then


def _proof(
    path: Path, account: Account, root: bytes, counted: tuple[int, int], damaged: list[str], unfinished: list[str]
) -> Proof:
    facts = account.facts or _old_facts(root)
    part = facts.get("part", 1)
    named = sorted(damaged)
    if len(named) > MOST_NAMED:
        named[MOST_NAMED:] = [f"and {len(named) - MOST_NAMED} more"]
    return Proof(
        path=path,
        complete=account.complete,
        public_key=account.public_key,
        own=account.public_key == signing_key().verify_key.encode().hex(),
        n_chunks=sum(name.rpartition("/")[2] != ROOT for name in account.files),
        nbytes=counted[0],
        damaged=tuple(named),
        title=_text(facts.get("title")),
        run_id=_text(facts.get("run_id")),
        began=_text(facts.get("begun")),
        part=part if isinstance(part, int) else 1,
        commits=account.commits,
        n_files=counted[1],
        version=account.version,
        unfinished=tuple(sorted(unfinished)),
    )


def _text(said: Any) -> str:
    return said if isinstance(said, str) else ""


def _old_facts(root: bytes) -> dict[str, Any]:
    """What a store of version 1 says of itself in its root metadata, which are signed."""
    try:
        said = parsed(root)["attributes"]["labhub_recording"]
        return {"begun": said.get("begun", ""), "part": said.get("part", 1)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def signed_account(path: Path, key: str | None) -> tuple[Account, bytes]:
    """Return what a recording's manifest says, and its root metadata, if both can be trusted.

    Raises
    ------
    UntrustedSigner
        It is not signed by `key`; by this user unless given.
    DamagedStore
        The manifest or the root metadata are not what was signed.
    """
    account = read_manifest(path)
    check_signer(path, account, key)
    try:
        root = read_inside(path, ROOT, LARGEST_JSON)
    except OSError as error:
        raise DamagedStore(f"{path}: {ROOT}: {error.strerror}", path=str(path)) from None
    if not account.root_is_signed(root):
        raise DamagedStore(f"{path}: {ROOT_DAMAGED}", path=str(path))
    return account, root
