"""Files that are not what they should be: corrupt headers, truncations, other versions, strangers in the directory."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import (
    ChannelNotFound,
    IncompatibleSegment,
    LabHubError,
    SchemaMismatch,
    SegmentAccessError,
    SegmentTokenMismatch,
    VersionMismatch,
)

FRAME = Schema.infer(dtype="u8", shape=(64,))
CAPACITY = 16
HEADER_NBYTES = 512 + 64 * 128
# layout.hpp: the two lines that nobody changes once magic is stored, each field with its first byte.
FIELDS = {
    "magic": 0,
    "abi": 8,
    "header_nbytes": 12,
    "capacity": 16,
    "slot_nbytes": 24,
    "stride": 32,
    "slot_headers_offset": 40,
    "payload_offset": 48,
    "total_nbytes": 56,
    "schema_hash": 64,
    "instance_id": 96,
    "shared_secret": 112,
    "policy": 120,
    "sync_policy": 121,
    "checksum_policy": 122,
    "reserved": 123,
}


def field_at(offset: int) -> str:
    return [name for name, first in FIELDS.items() if first <= offset][-1]


@pytest.fixture
def dead() -> Iterator[bytearray]:
    """Leave a whole segment with some slots and no producer at the path "x"; its bytes."""
    p = open_producer("x", FRAME, capacity=CAPACITY)
    p.write_many(range_of_slots(5))
    os.link(place("x"), place("kept"))
    p.close()
    place("kept").rename(place("x"))
    data = bytearray(place("x").read_bytes())
    struct.pack_into("<I", data, 320 + 16, 0)  # the closed flag: as if the producer had been killed
    put(data)
    yield data
    place("x").unlink(missing_ok=True)


def range_of_slots(n: int) -> list[list[int]]:
    return [[seq] * 64 for seq in range(n)]


def place(name: str) -> Path:
    return Path(segment_directory(), name)


def put(data: bytes | bytearray) -> None:
    """Put a file at the path "x": a new one, since others may have the last one mapped."""
    place("new").touch(0o600)
    place("new").write_bytes(data)
    place("new").rename(place("x"))


def read_all() -> list[int]:
    with open_consumer("x", FRAME, start="oldest") as c:
        return next(c.batches(timeout=5)).data[:, 0].tolist()


LENGTHS = {"capacity", "slot_nbytes", "stride", "slot_headers_offset", "payload_offset", "total_nbytes"}


def refusal() -> LabHubError | None:
    """Read everything; the typed error that kept us from it, if there was one."""
    try:
        assert read_all() == [0, 1, 2, 3, 4]
    except LabHubError as error:
        return error
    return None


def test_each_byte_of_the_immutable_header_flipped(dead: bytearray) -> None:
    refused: set[str] = set()
    for offset in range(128):
        field = field_at(offset)
        for flip in (0x01, 0x80, 0xFF):
            data = dead.copy()
            data[offset] ^= flip
            put(data)
            error = refusal()
            if error is None:  # a byte that carries no rule for this reader
                continue
            refused.add(field)
            if field == "schema_hash":
                assert type(error) is SchemaMismatch
                continue
            assert type(error) is (VersionMismatch if field == "abi" else IncompatibleSegment)
            # Where two lengths no longer fit each other, either may be the one that is named.
            assert error.field == field or {error.field, field} <= LENGTHS, (error.field, field)
            assert str(place("x")) in str(error)
    assert refused == FIELDS.keys() - {"instance_id", "shared_secret", "reserved"}


def test_identity_bytes_that_were_asked_for(dead: bytearray) -> None:
    instance_id = bytes(dead[96:112])
    for offset in (*range(96, 112),):
        data = dead.copy()
        data[offset] ^= 1
        put(data)
        with pytest.raises(SegmentTokenMismatch):
            open_consumer("x", FRAME, instance_id=instance_id)
    put(dead)
    with pytest.raises(SegmentTokenMismatch):
        open_consumer("x", FRAME, shared_secret=1)
    open_consumer("x", FRAME, instance_id=instance_id).close()


def test_every_other_byte_of_the_header_flipped_crashes_nobody(dead: bytearray) -> None:
    """These lines change at run time, and whoever may write them is trusted: the reader may see nonsense, no more."""
    for offset in range(128, 512 + 2 * 64):
        data = dead.copy()
        data[offset] ^= 0xFF
        put(data)
        _native.probe(segment_directory(), "x")
        try:
            with open_consumer("x", FRAME, start="oldest") as c:
                c.snapshot()
                c._native.wait(1, 0)
                c._native.read(bytearray(FRAME.slot_nbytes), bytearray(_native.SLOT_HEADER_NBYTES))
        except LabHubError:
            pass


def test_truncated_at_every_page_and_around_the_header(dead: bytearray) -> None:
    cuts = [*range(0, len(dead), 4096), 1, 63, 64, HEADER_NBYTES - 1, HEADER_NBYTES, len(dead) - 1]
    assert len(cuts) > 8
    for cut in cuts:
        put(dead[:cut])
        for attach in (lambda: open_consumer("x", FRAME), lambda: open_producer("x", FRAME, capacity=CAPACITY)):
            with pytest.raises(IncompatibleSegment) as caught:
                attach()
            assert caught.value.field in ("size", "payload_offset", "total_nbytes")
        assert len(place("x").read_bytes()) == cut  # and it is left as it was found
    put(dead + bytes(4096))
    with pytest.raises(IncompatibleSegment, match="total_nbytes"):
        open_consumer("x", FRAME)


def test_a_producer_meets_a_corrupt_segment(dead: bytearray) -> None:
    for offset in (0, 12, 16, 32, 40, 48, 56, 121):
        data = dead.copy()
        data[offset] ^= 0x40
        put(data)
        with pytest.raises(IncompatibleSegment) as caught:
            open_producer("x", FRAME, capacity=CAPACITY)
        assert caught.value.field in FIELDS
        assert place("x").read_bytes() == data


def test_another_version_names_both(dead: bytearray) -> None:
    struct.pack_into("<I", dead, 8, _native.ABI_VERSION + 1)
    put(dead)
    for attach in (
        lambda: open_consumer("x", FRAME),
        lambda: open_producer("x", FRAME, capacity=CAPACITY),
        lambda: _native.unlink_dead(segment_directory(), "x"),
    ):
        with pytest.raises(VersionMismatch, match="has layout version 2, this labhub speaks 1") as caught:
            attach()
        assert (caught.value.ours, caught.value.theirs) == (_native.ABI_VERSION, _native.ABI_VERSION + 1)
    assert place("x").exists()


def make_foreign(kind: str, path: Path) -> None:
    match kind:
        case "foreign":
            path.touch(0o600)
            path.write_bytes(os.urandom(3 * 4096))
        case "empty":
            path.touch(0o600)
        case "fifo":
            os.mkfifo(path, 0o600)
        case "directory":
            path.mkdir(0o700)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
            path.chmod(0o600)
        case "symlink":
            path.symlink_to("/etc/passwd")
        case "open to others":
            path.touch(0o644)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        *((kind, IncompatibleSegment) for kind in ("foreign", "empty", "fifo", "directory", "socket")),
        *((kind, SegmentAccessError) for kind in ("symlink", "open to others")),
    ],
)
def test_strangers_in_the_segment_directory(kind: str, error: type[LabHubError]) -> None:
    with open_producer("other", FRAME, capacity=2):  # makes the directory
        make_foreign(kind, place("x"))
        before = os.lstat(place("x"))
        for attach in (
            lambda: open_consumer("x", FRAME),
            lambda: open_producer("x", FRAME),
            lambda: _native.probe(segment_directory(), "x"),
            lambda: _native.unlink_dead(segment_directory(), "x"),
        ):
            with pytest.raises(error, match="/x") as caught:
                attach()
            assert getattr(caught.value, "path", "").endswith("/x")
        after = os.lstat(place("x"))
        assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)
        if kind == "directory":
            place("x").rmdir()
        else:
            place("x").unlink()


@pytest.mark.parametrize("kind", ["foreign", "symlink"])
def test_a_stranger_instead_of_the_directory(kind: str, private_dirs: Path) -> None:
    directory = Path(segment_directory())
    make_foreign(kind, directory)
    for attach in (lambda: open_consumer("x", FRAME), lambda: open_producer("x", FRAME, capacity=2)):
        with pytest.raises(LabHubError, match=str(directory)):
            attach()
    directory.unlink()


@pytest.mark.parametrize("kind", ["link", "writable by others", "foreign"])
def test_a_place_of_segment_directories_that_could_lead_elsewhere(kind: str, private_dirs: Path) -> None:
    base, elsewhere = private_dirs / "shm", private_dirs / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    match kind:
        case "link":
            base.rmdir()
            base.symlink_to(elsewhere)
        case "writable by others":
            base.chmod(0o777)
        case "foreign" if os.geteuid() == 0:
            os.chown(base, 65534, -1)
        case _:
            pytest.skip("only root can give a directory away")
    for attach in (lambda: open_consumer("x", FRAME), lambda: open_producer("x", FRAME, capacity=2)):
        with pytest.raises(SegmentAccessError, match=f"{base}\\b"):
            attach()
    assert list(base.iterdir()) == list(elsewhere.iterdir()) == []
    if kind == "writable by others":
        base.chmod(0o1777)  # nobody renames another's directories there
        open_producer("x", FRAME, capacity=2).close()


def test_no_directory_at_all() -> None:
    with pytest.raises(ChannelNotFound):
        open_consumer("x", FRAME)


def test_a_failed_attach_leaves_the_owner_alone() -> None:
    with open_producer("x", FRAME, capacity=4, shared_secret=7) as p, open_consumer("x", FRAME, mode="lossless") as c:
        before = place("x").read_bytes()
        for failing, error in (
            (lambda: open_consumer("x", FRAME, shared_secret=8), SegmentTokenMismatch),
            (lambda: open_consumer("x", FRAME, instance_id=bytes(16)), SegmentTokenMismatch),
            (lambda: open_consumer("x", Schema.infer(dtype="f4")), SchemaMismatch),
        ):
            with pytest.raises(error):
                failing()
        assert place("x").read_bytes() == before
        p.write_many(range_of_slots(3))
        assert next(c.batches()).data[:, 0].tolist() == [0, 1, 2]
        assert p.stats()["consumers"] == 1


def test_live_users_go_on_after_an_unlink() -> None:
    with open_producer("x", FRAME, capacity=8) as p, open_consumer("x", FRAME, mode="lossless") as c:
        place("x").unlink()
        p.write_many(range_of_slots(3))
        assert next(c.batches()).data[:, 0].tolist() == [0, 1, 2]
        with pytest.raises(ChannelNotFound):
            open_consumer("x", FRAME)
        with open_producer("x", FRAME, capacity=8) as successor:  # a new file; closing the old one leaves it alone
            p.close()
            assert place("x").exists()
            successor.write_many(range_of_slots(1))
            assert read_all() == [0]
    assert not place("x").exists()
