"""Faults 11, 12 and 14: unlinked, corrupt and foreign files, and attempts to attach that fail."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psutil
import pytest

from labhub import _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import (
    ChannelBusy,
    ChannelNotFound,
    IncompatibleSegment,
    LabHubError,
    SchemaMismatch,
    SegmentAccessError,
    SegmentTokenMismatch,
    VersionMismatch,
)
from tests.faults.rounds import Fault
from tests.faults.segments import (
    CAPACITY,
    FIELDS,
    FRAME,
    HEADER_NBYTES,
    WAYS,
    elsewhere,
    leave_dead_segment,
    place,
    probe,
    producer,
    put,
    read_all,
    refusal,
    slots,
    take_over,
)

LENGTHS = {"capacity", "slot_nbytes", "stride", "slot_headers_offset", "payload_offset", "total_nbytes"}
POLICIES = {"policy", "sync_policy", "checksum_policy"}
"""Another value of these that there is makes another segment, not a broken one."""
IGNORED = {
    "instance_id": "compared with what the reader was told by the broker, and it was told nothing",
    "shared_secret": "compared where one is asked for",
    "reserved": "for later versions, which old ones can then live with",
}
"""The fields of the immutable header that a reader who asks for nothing has no rule for, and why."""


@pytest.fixture
def dead() -> Iterator[bytearray]:
    """The bytes of a segment "x" whose producer was killed."""
    data = leave_dead_segment()
    yield data
    place("x").unlink(missing_ok=True)


@pytest.mark.fault(11, quick=2, full=20)
def test_11_segment_unlinked_under_live_users(fault: Fault) -> None:
    for _ in fault.each_round():
        with elsewhere(producer()) as other, open_consumer("x", FRAME, mode="lossless", start="oldest") as c:
            batches = c.batches(timeout=30)
            assert next(batches).data[:, 0].tolist() == [0, 1, 2, 3, 4]
            place("x").unlink()
            fault.happened()
            with pytest.raises(ChannelNotFound):
                open_consumer("x", FRAME)
            with open_producer("x", FRAME, capacity=CAPACITY) as successor:  # a new file: nobody's is unlinked twice
                inode = place("x").stat().st_ino
                assert other.ask(3) == "8"
                assert next(batches).data[:, 0].tolist() == [5, 6, 7]
                assert other.end() == 0  # its close leaves the successor's file alone
                assert list(batches) == []
                assert place("x").stat().st_ino == inode
                successor.write_many(slots(0, 1))
                assert read_all() == [0]
        assert not place("x").exists()


@pytest.mark.fault(12)
def test_12_each_byte_of_the_immutable_header_flipped(fault: Fault, dead: bytearray) -> None:
    for _ in fault.each_round():
        refused: set[str] = set()
        for offset in range(128):
            field = [name for name, first in FIELDS.items() if first <= offset][-1]
            for flip in (0x01, 0x80, 0xFF):
                data = dead.copy()
                data[offset] ^= flip
                put(data)
                fault.happened()
                error = refusal(read_all)
                if error is None:
                    assert field in IGNORED or (field in POLICIES and data[offset] <= 2)
                    continue
                refused.add(field)
                if field == "schema_hash":
                    assert type(error) is SchemaMismatch
                    continue
                assert type(error) is (VersionMismatch if field == "abi" else IncompatibleSegment)
                # Where two lengths no longer fit each other, either may be the one that is named.
                assert error.field == field or {error.field, field} <= LENGTHS, (error.field, field)
                assert str(place("x")) in str(error)
        assert refused == FIELDS.keys() - IGNORED.keys()


@pytest.mark.fault(12)
def test_12_each_other_byte_of_the_header_flipped(fault: Fault, dead: bytearray) -> None:
    """These lines change at run time, and whoever may write them is trusted: a reader may see nonsense, and no more.

    State lines, then the first and last lossless line and observer line, and in a full run the 124 between them, too.
    """
    ends = [range(512 + 64 * line, 576 + 64 * line) for line in (0, 63, 64, 127)]
    offsets = range(128, HEADER_NBYTES) if fault.torture else [*range(128, 512), *chain(*ends)]
    for _ in fault.each_round():
        for offset in offsets:
            data = dead.copy()
            data[offset] ^= 0xFF
            put(data)
            fault.happened()
            probe()
            with open_consumer("x", FRAME, start="oldest") as c:
                c.snapshot()
                c._native.wait(1, 0)
                c._native.read(bytearray(FRAME.slot_nbytes), bytearray(_native.SLOT_HEADER_NBYTES))
            refusal(take_over)


@pytest.mark.fault(12)
def test_12_identity_that_was_asked_for(fault: Fault, dead: bytearray) -> None:
    instance_id = bytes(dead[96:112])
    open_consumer("x", FRAME, instance_id=instance_id).close()
    for offset in fault.each(range(96, 112)):
        data = dead.copy()
        data[offset] ^= 1
        put(data)
        fault.happened()
        with pytest.raises(SegmentTokenMismatch):
            open_consumer("x", FRAME, instance_id=instance_id)
    with pytest.raises(SegmentTokenMismatch):
        open_consumer("x", FRAME, shared_secret=1)


@pytest.mark.fault(12)
def test_12_file_truncated_at_every_page(fault: Fault, dead: bytearray) -> None:
    cuts = [*range(0, len(dead), 4096), 1, 63, 64, HEADER_NBYTES - 1, HEADER_NBYTES, len(dead) - 1]
    assert len(cuts) > 8
    for cut in fault.each(cuts):
        put(dead[:cut])
        fault.happened()
        for attach in WAYS:
            error = refusal(attach)
            assert isinstance(error, IncompatibleSegment)
            assert error.field in ("size", "payload_offset", "total_nbytes")
        assert place("x").stat().st_size == cut  # and it is left as it was found
    put(dead + bytes(4096))
    with pytest.raises(IncompatibleSegment, match="total_nbytes"):
        open_consumer("x", FRAME)


@pytest.mark.fault(12, quick=200, full=5_000)
def test_12_random_files(fault: Fault, dead: bytearray) -> None:
    before = psutil.Process().memory_info().rss
    for number in fault.each_round():
        noise = os.urandom(number % (3 * 4096))
        put(dead[: number % 17] + noise)  # with more and more of a right beginning
        fault.happened()
        for attach in WAYS:
            assert isinstance(refusal(attach), IncompatibleSegment)
    assert psutil.Process().memory_info().rss - before < 32 * 1024 * 1024


@pytest.mark.fault(12)
def test_12_sparse_file_with_a_right_header(fault: Fault, dead: bytearray) -> None:
    """What it says that it holds must be there: to populate its map would allocate all of it."""
    size = 1 << 40
    capacity = (size - HEADER_NBYTES) // (64 + 512) // 4096 * 4096
    payload = -(-(HEADER_NBYTES + 64 * capacity) // 4096) * 4096
    total = payload + 512 * capacity
    struct.pack_into("<QQQQQQ", dead, 16, capacity, 512, 512, HEADER_NBYTES, payload, total)
    put(dead)
    os.truncate(place("x"), total)
    before, allocated = psutil.Process().memory_info().rss, place("x").stat().st_blocks
    for attach in fault.each(WAYS):
        error = refusal(attach)
        assert isinstance(error, IncompatibleSegment)
        assert error.field == "size"
        fault.happened()
    assert place("x").stat().st_blocks == allocated
    assert psutil.Process().memory_info().rss - before < 32 * 1024 * 1024


@pytest.mark.fault(12)
def test_12_producer_meets_a_corrupt_segment(fault: Fault, dead: bytearray) -> None:
    for offset in fault.each((0, 12, 16, 32, 40, 48, 56, 121)):
        data = dead.copy()
        data[offset] ^= 0x40
        put(data)
        fault.happened()
        error = refusal(take_over)
        assert isinstance(error, IncompatibleSegment)
        assert error.field in FIELDS
        assert place("x").read_bytes() == data


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


@pytest.mark.fault(12)
def test_12_foreign_files(fault: Fault) -> None:
    kinds: dict[str, type[LabHubError]]
    kinds = dict.fromkeys(("foreign", "empty", "fifo", "directory", "socket"), IncompatibleSegment)
    kinds |= dict.fromkeys(("symlink", "open to others"), SegmentAccessError)
    with open_producer("other", FRAME, capacity=2):  # makes the directory
        for kind, expected in fault.each(kinds.items()):
            make_foreign(kind, place("x"))
            fault.happened()
            before = os.lstat(place("x"))
            for attach in WAYS:
                error = refusal(attach)
                assert type(error) is expected
                assert getattr(error, "path", "").endswith("/x")
            after = os.lstat(place("x"))
            assert (after.st_ino, after.st_size, after.st_mode) == (before.st_ino, before.st_size, before.st_mode)
            (place("x").rmdir if kind == "directory" else place("x").unlink)()


@pytest.mark.fault(12)
def test_12_stranger_instead_of_the_directory(fault: Fault) -> None:
    directory = Path(segment_directory())
    with pytest.raises(ChannelNotFound):
        open_consumer("x", FRAME)  # no directory at all
    for kind in fault.each(("foreign", "symlink")):
        make_foreign(kind, directory)
        fault.happened()
        for attach in WAYS:
            assert str(directory) in str(refusal(attach))
        directory.unlink()


ATTEMPTS = {
    "wrong token": ('open_consumer("x", FRAME, shared_secret=8)', "SegmentTokenMismatch"),
    "wrong instance": ('open_consumer("x", FRAME, instance_id=bytes(16))', "SegmentTokenMismatch"),
    "wrong schema": ('open_consumer("x", Schema.infer(dtype="f4"))', "SchemaMismatch"),
    "second producer": ('open_producer("x", FRAME, capacity=16)', "ChannelBusy"),
    "no memory": ('open_consumer("x", FRAME)', "SegmentSpaceError"),
    "other user": ('open_consumer("x", FRAME, directory=directory)', "SegmentAccessError"),
}
LARGE = 1 << 16
"""Slots of a segment that does not fit into 8 MB of address space."""
ATTEMPT = """
import resource
directory = segment_directory()
{before}
print("ready", flush=True)
sys.stdin.readline()
try:
    {attempt}
except LabHubError as error:
    print(type(error).__name__, flush=True)
else:
    print("attached", flush=True)
"""
NO_MEMORY = """
with open("/proc/self/statm") as f: used = int(f.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), resource.RLIM_INFINITY))
"""


@pytest.mark.fault(14, full=2)
def test_14_failed_attach_leaves_the_owners_segment_as_it_was(fault: Fault, private_dirs: Path) -> None:
    before = {"no memory": NO_MEMORY, "other user": "os.setgroups([]); os.setgid(65534); os.setuid(65534)"}
    attempts = [kind for kind in ATTEMPTS if kind != "other user" or os.geteuid() == 0]
    for _ in fault.each_round():
        with elsewhere(producer(secret=7, capacity=LARGE)) as owner:
            content = place("x").read_bytes()
            for number, kind in enumerate(attempts):
                attempt, error = ATTEMPTS[kind]
                if kind == "no memory":  # not refused for anything else
                    attempt = attempt.replace("FRAME", "FRAME, shared_secret=7")
                with elsewhere(ATTEMPT.format(before=before.get(kind, ""), attempt=attempt)) as other:
                    assert other.ask("go") == error, kind
                fault.happened()
                assert place("x").read_bytes() == content, kind
                report = _native.probe(segment_directory(), "x")
                assert (report["alive"], report["pid"], report["consumers"]) == (True, owner.pid, [])
                with pytest.raises(ChannelBusy, match=str(owner.pid)):
                    take_over()
                assert owner.ask(1) == str(6 + number)
                content = place("x").read_bytes()
            with open_consumer("x", FRAME, start="oldest", shared_secret=7) as c:
                assert next(c.batches(timeout=30)).data[:, 0].tolist() == list(range(5 + len(attempts)))


@pytest.mark.fault(14)
def test_14_directory_that_cannot_be_written(fault: Fault, private_dirs: Path) -> None:
    if os.geteuid() == 0:
        drop = "import os; os.setuid(65534)\n"
        shm = Path("/dev/shm") / f"labhub-test-nobody-{os.getpid()}"
    else:
        drop, shm = "", private_dirs / "shm"
    shm.mkdir(0o700, exist_ok=True)
    code = f"""
from labhub import Schema
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentAccessError
{drop}
try:
    open_producer("x", Schema.infer(dtype="i8"), directory={str(shm / "default")!r}, capacity=4)
except SegmentAccessError as error:
    print(error)
"""
    try:
        shm.chmod(0o700 if os.geteuid() == 0 else 0o500)
        with fault.round():
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
            assert str(shm) in done.stdout, done.stderr
            assert list(shm.iterdir()) == []
            fault.happened()
    finally:
        shm.chmod(0o700)
        if os.geteuid() == 0:
            shm.rmdir()
