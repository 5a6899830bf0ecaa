"""S5 and S6: stores of another signer, and stores made to lead a reader astray."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import labhub
from labhub.errors import DamagedStore, InvalidArgument, LabHubError, NotARecording, UntrustedSigner
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.inside import LARGEST_FILE
from labhub.recording.manifest import LONGEST_LINE, MANIFEST, ROOT
from labhub.recording.proof import signing_key
from labhub.recording.reading import stored_channels
from tests.recording.strangers import STRANGERS_KEY, claim, emptied, signed_anew


@pytest.fixture
def store(hub: Hub, tmp_path: Path) -> Path:
    path = tmp_path / "run.zarr"
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=path, compression="none"):
        p.write_many(np.arange(10.0))
    return path


@pytest.fixture
def forged(store: Path) -> Path:
    """The same store with another value in it, signed by somebody else."""
    chunk = store / "x" / "value" / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[:8] = np.float64(42.0).tobytes()
    chunk.write_bytes(data)
    signed_anew(store)
    return store


def first(hub: Hub, store: Path, **options: Any) -> float:
    """The first value that a replay plays."""
    with labhub.replay(store, hub=hub, speed=None, **options):
        with hub.consumer("x", mode="lossless", start="oldest") as reader:
            return float(next(reader.batches(timeout=10)).data[0])


def test_a_store_of_another_signer_is_not_played_unless_told(hub: Hub, forged: Path) -> None:
    with pytest.raises(UntrustedSigner, match=f"signed by {STRANGERS_KEY}, which is not your key.*key='any'") as caught:
        labhub.replay(forged, hub=hub)
    assert caught.value.signer == STRANGERS_KEY
    assert f"--key {STRANGERS_KEY}" in caught.value.told("shell")
    assert isinstance(caught.value, DamagedStore | PermissionError)
    assert hub.channels() == []
    assert first(hub, forged, key=STRANGERS_KEY.upper()) == 42.0


def test_any_signer_is_taken_when_that_is_said(hub: Hub, forged: Path) -> None:
    assert first(hub, forged, key="any") == 42.0


def test_verify_names_the_signer_and_refuses_another_one(forged: Path) -> None:
    proof = verify(forged)
    assert (proof.good, proof.own, proof.public_key) == (True, False, STRANGERS_KEY)
    mine = signing_key().verify_key.encode().hex()
    with pytest.raises(UntrustedSigner, match=f"signed by {STRANGERS_KEY}, not by {mine}"):
        verify(forged, key=mine)
    with pytest.deprecated_call():
        assert verify(forged, public_key=STRANGERS_KEY)


def test_a_commit_of_another_key_among_ones_own_is_refused_by_both(hub: Hub, store: Path, tmp_path: Path) -> None:
    lines = (store / MANIFEST).read_bytes().splitlines(keepends=True)
    signed_anew(store)
    theirs = (store / MANIFEST).read_bytes().splitlines(keepends=True)
    (store / MANIFEST).write_bytes(b"".join([*lines[:-1], theirs[-1]]))
    for read in (verify, stored_channels, lambda path: labhub.replay(path, hub=hub, key="any")):
        with pytest.raises(DamagedStore):
            read(store)


@pytest.mark.parametrize("key", ["", "me", "00" * 31, 7])
def test_a_key_that_is_none_is_refused(hub: Hub, store: Path, key: Any) -> None:
    with pytest.raises(InvalidArgument, match="64 hex digits"):
        verify(store, key)
    with pytest.raises(InvalidArgument, match="64 hex digits"):
        labhub.replay(store, hub=hub, key=key)


def test_a_table_has_no_signer(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,v\n0.5,1\n")
    with pytest.raises(InvalidArgument, match="only a recording is signed"):
        labhub.replay(tmp_path / "t.csv", hub=hub, key="any")


OUTSIDE = [
    "/etc/hostname",
    "../secret",
    "x/../../secret",
    "x//value",
    "./x",
    "",
    ".",
    "a\0b",
    "\ud800",
    7,
    None,
    "a/" * 3000,
]


@pytest.mark.parametrize("name", OUTSIDE, ids=range(len(OUTSIDE)))
def test_a_name_that_leads_outside_is_refused(hub: Hub, store: Path, name: Any) -> None:
    (store.parent / "secret").write_text("of somebody else")
    line = json.dumps(claim(name, b"of somebody else") | {"signature": "00" * 64})
    rest = (store / MANIFEST).read_text().split("\n")
    (store / MANIFEST).write_text("\n".join([*rest[:-2], line, *rest[-2:]]))
    for read in (verify, lambda path: labhub.replay(path, hub=hub, key="any")):
        with pytest.raises(DamagedStore):
            read(store)


def test_a_signed_name_that_leads_outside_is_refused(hub: Hub, store: Path) -> None:
    (store.parent / "secret").write_text("of somebody else")
    signed_anew(store, more=[claim("../secret", b"of somebody else")])
    with pytest.raises(DamagedStore, match="leads to no file inside the store"):
        verify(store)
    with pytest.raises(DamagedStore, match="leads to no file inside the store"):
        labhub.replay(store, hub=hub, key="any")


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # such a name may not be long
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path.name)
    os.chdir(here)


def as_link(path: Path) -> None:
    other = path.parents[1] / "other"
    other.write_bytes(b"\0" * 8)
    path.symlink_to(other)


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": as_fifo,
    "socket": as_socket,
    "directory": Path.mkdir,
    "link": as_link,
    "device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("name", ["x/value/c/0", "x/zarr.json", "x/time/zarr.json", "b3sums.txt"])
def test_what_is_no_regular_file_is_named_and_never_read(store: Path, name: str, make: Callable[[Path], Any]) -> None:
    (store / name).unlink()
    make(store / name)
    damaged = verify(store).damaged
    assert any(line.startswith((f"{name}: ", f"{name}/: ")) for line in damaged)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
def test_a_chunk_that_is_no_regular_file_is_never_replayed(hub: Hub, store: Path, make: Callable[[Path], Any]) -> None:
    (store / "x" / "value" / "c" / "0").unlink()
    make(store / "x" / "value" / "c" / "0")
    with labhub.replay(store, hub=hub, speed=1e6) as replay, pytest.raises(DamagedStore, match="x/value/c/0"):
        replay.wait(timeout=10)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("name", [MANIFEST, ROOT])
def test_a_manifest_or_root_that_is_no_regular_file_is_refused(
    hub: Hub, store: Path, name: str, make: Callable[[Path], Any]
) -> None:
    (store / name).unlink()
    make(store / name)
    for read in (verify, lambda path: labhub.replay(path, hub=hub)):
        with pytest.raises((DamagedStore, NotARecording)):
            read(store)


def test_a_directory_that_is_a_link_is_not_followed(hub: Hub, store: Path) -> None:
    (store / "x" / "value").rename(store.parent / "value")
    (store / "x" / "value").symlink_to(store.parent / "value")
    proof = verify(store)
    assert any(line.startswith("x/value: is not in the manifest") for line in proof.damaged)
    assert any(line.startswith("x/value/c/0: ") for line in proof.damaged)
    with labhub.replay(store, hub=hub, speed=1e6) as replay, pytest.raises(DamagedStore):
        replay.wait(timeout=10)


def test_a_store_may_itself_be_found_through_a_link(hub: Hub, store: Path) -> None:
    (store.parent / "link.zarr").symlink_to(store)
    assert verify(store.parent / "link.zarr")
    assert first(hub, store.parent / "link.zarr") == 0.0


DEEP = 5000


@pytest.mark.parametrize(
    "line",
    [
        b"[" * DEEP + b"]" * DEEP,
        b'{"file":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"commit":' * DEEP + b"1" + b"}" * DEEP,
        b'{"note":"' + b"x" * (LONGEST_LINE + 1) + b'"}',
        b"x" * (LONGEST_LINE + 1),
        b'{"commit":0,"blake3":' + b"9" * 5000 + b"}",
        b'{"file":"a","blake3":"0","nbytes":Infinity}',
        b'{"file":"a","blake3":"0","nbytes":1e308}',
        b'{"file":"a","blake3":"0","nbytes":-1}',
        b"\0" * 100,
        b'"file"',
    ],
    ids=range(11),
)
@pytest.mark.parametrize("where", [0, 1, -1])
def test_a_line_that_is_deep_or_long_is_refused(hub: Hub, store: Path, line: bytes, where: int) -> None:
    lines = (store / MANIFEST).read_bytes().splitlines()
    lines.insert(where if where >= 0 else len(lines), line)
    (store / MANIFEST).write_bytes(b"\n".join(lines) + b"\n")
    for read in (verify, lambda path: labhub.replay(path, hub=hub)):
        with pytest.raises(DamagedStore):
            read(store)


@pytest.mark.parametrize("root", [b"[" * DEEP + b"]" * DEEP, b'{"attributes":' + b"[" * DEEP, b"7", b"\0", b"{}"])
def test_root_metadata_that_are_deep_or_empty_are_refused(hub: Hub, store: Path, root: bytes) -> None:
    (store / ROOT).write_bytes(root)
    for read in (verify, lambda path: labhub.replay(path, hub=hub)):
        with pytest.raises(NotARecording):
            read(store)


def rewritten(store: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the metadata by which a store is read, and sign it."""
    root = json.loads((store / ROOT).read_bytes())
    edit(root["consolidated_metadata"]["metadata"])
    (store / ROOT).write_text(json.dumps(root))
    signed_anew(store)


def nest(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


EVIL: dict[str, Callable[[dict[str, Any]], object]] = {
    "huge shape": lambda m: [m[f"x/{a}"].update(shape=[1 << 60]) for a in ("value", "seq", "time", "nbytes")],
    "huge chunk": lambda m: m["x/time"]["chunk_grid"]["configuration"].update(chunk_shape=[1 << 40]),
    "negative shape": lambda m: m["x/time"].update(shape=[-1]),
    "another codec": lambda m: m["x/time"].update(codecs=[{"name": "no.such.codec", "configuration": {}}]),
    "no codecs": lambda m: m["x/time"].update(codecs=[]),
    "deep attributes": lambda m: m["x"]["attributes"].update(labhub_schema=nest(300)),
    "no schema": lambda m: m["x"]["attributes"].pop("labhub_schema"),
    "a schema of a huge slot": lambda m: m["x"]["attributes"].update(
        labhub_schema=json.dumps({"dtype": "<f8", "shape": [1 << 40]})
    ),
    "other dims": lambda m: m["x/value"].update(dimension_names=["a", "b", "c"]),
    "another dtype": lambda m: m["x/time"].update(data_type="float32"),
    "no array": lambda m: m.pop("x/nbytes"),
    "a group for an array": lambda m: m.update({"x/time": m["x"]}),
    "a list for metadata": lambda m: m.update({"x": []}),
}


@pytest.mark.parametrize("edit", EVIL.values(), ids=EVIL.keys())
def test_metadata_of_a_stranger_who_is_trusted_end_in_a_typed_error(
    hub: Hub, store: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    rewritten(store, edit)
    with pytest.raises(LabHubError):
        with labhub.replay(store, hub=hub, speed=1e6, key="any") as replay:
            replay.wait(timeout=20)
            pytest.fail("it was played")


def test_a_chunk_longer_than_it_was_signed_is_not_read(hub: Hub, store: Path) -> None:
    with (store / "x" / "value" / "c" / "0").open("r+b") as file:
        file.truncate(1 << 40)  # of holes
    assert verify(store).damaged == ("x/value/c/0: was changed after it had been recorded",)
    with labhub.replay(store, hub=hub, speed=1e6) as replay, pytest.raises(DamagedStore, match="was changed"):
        replay.wait(timeout=10)


def test_a_file_that_is_said_to_be_huge_is_refused_before_it_is_read(hub: Hub, store: Path) -> None:
    signed_anew(store, more=[claim("x/huge") | {"nbytes": LARGEST_FILE + 1}])
    for read in (verify, lambda path: labhub.replay(path, hub=hub, key="any")):
        with pytest.raises(DamagedStore, match="is none of a recording"):
            read(store)


def test_an_empty_store_of_a_stranger_holds_nothing(hub: Hub, store: Path) -> None:
    emptied(store)
    signed_anew(store)
    assert verify(store)
    with pytest.raises(InvalidArgument, match="holds no slots"):
        labhub.replay(store, hub=hub, key="any")
