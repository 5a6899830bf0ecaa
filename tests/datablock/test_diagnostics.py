"""A look at a segment from outside: what it says, that nobody notices it, and what is no segment."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from pathlib import Path

import pytest

import labhub
from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import (
    BackpressureTimeout,
    ChannelNotFound,
    Evicted,
    IncompatibleSegment,
    InvalidName,
    SegmentAccessError,
    VersionMismatch,
)
from tests.faults.children import Child

NUMBER = Schema.infer(dtype="i8")
ABI_OFFSET = 8  # layout.hpp: after the magic


def segment(name: str = "x") -> Path:
    return Path(segment_directory(), name)


def test_owner_geometry_and_time() -> None:
    before = time.time_ns()
    with open_producer("x", NUMBER, capacity=4, lossless="single") as p:
        fresh = labhub.diagnose("x")
        assert (fresh.head, fresh.first_seq, fresh.commit_ns) == (0, 0, 0)
        assert fresh.slots == {"empty": 4, "committed": 0, "holes": 0, "writing": 0, "uncommitted": 0}
        p.write_many([0, 1, 2, 3, 4])
        found = labhub.diagnose("x")
        assert (found.name, found.path) == ("x", str(segment()))
        assert (found.alive, found.closed, found.pid, found.epoch) == (True, False, os.getpid(), 1)
        assert found.start_time == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        assert (found.instance_id, found.schema_hash) == (p.instance_id.hex(), NUMBER.layout_hash.hex())
        assert (found.capacity, found.slot_nbytes, found.stride) == (4, 8, 8)
        assert found.nbytes == segment().stat().st_size
        assert (found.policy, found.sync_policy, found.checksum_policy) == ("RING_BUFFER", "SEQUENTIAL", "NONE")
        assert (found.head, found.counters["bytes_written"]) == (5, 40)
        assert before <= found.created_ns <= found.commit_ns <= time.time_ns()
        assert found.slots == {"empty": 0, "committed": 4, "holes": 0, "writing": 0, "uncommitted": 0}
        assert json.loads(json.dumps(found.to_dict()))["head"] == 5


def test_a_first_seq_of_its_own() -> None:
    native = _native.Producer(
        segment_directory(), "x", capacity=4, slot_nbytes=8, schema_hash=bytes(32), initial_seq=2**31 - 2
    )
    try:
        assert labhub.diagnose("x").commit_ns == 0
        native.write_many(bytes(8 * 3), -1, -1)
        found = labhub.diagnose("x")
        assert (found.head - found.first_seq, found.slots["committed"], found.slots["empty"]) == (3, 3, 1)
    finally:
        native.close()


def test_readers_their_lag_and_their_liveness(wait_until) -> None:
    with open_producer("x", NUMBER, capacity=4, lossless=True, evict_after=None) as p:

        def read_one_and_wait(report) -> None:
            with open_consumer("x", NUMBER, mode="lossless") as c:
                report(0)
                next(c.batches())
                report(c.cursor)
                time.sleep(60)

        child = Child(read_one_and_wait)
        child.receive()
        with open_consumer("x", NUMBER) as lossy:
            p.write(0)
            assert child.receive() == 1
            p.write_many([1, 2])
            with lossy.slot(timeout=5):
                pass
            reader, observer = labhub.diagnose("x").readers
            assert (reader.line, reader.kind, reader.pid, reader.alive, reader.evicted) == (
                *(0, "lossless", child.pid),
                *(True, False),
            )
            assert (reader.cursor, reader.lag, reader.received, reader.lost) == (1, 2, 1, 0)
            assert (observer.line, observer.kind, observer.pid) == (64, "lossy", os.getpid())
            assert (observer.cursor, observer.lag, observer.received, observer.lost) == (1, 2, 1, 0)
            child.kill()
            assert [r.alive for r in labhub.diagnose("x").readers] == [False, True]
            p.write_many([3, 4, 5])  # the dead one is in the way, and is evicted
            evicted, observer = labhub.diagnose("x").readers
            assert (evicted.alive, evicted.evicted) == (False, True)
            assert labhub.diagnose("x").counters["evictions"] == 1
            next(lossy.batches())
            assert [r.lost for r in labhub.diagnose("x").readers if r.kind == "lossy"] == [1]
        assert [r.kind for r in labhub.diagnose("x").readers] == ["lossless"]  # who leaves is no longer shown


def test_slots_in_every_state() -> None:
    with open_producer("x", NUMBER, capacity=8, lossless=False) as p:
        p.write_many([0, 1, 2])
        slot = p.slot()
        slot.__enter__()
        assert labhub.diagnose("x").slots == {"empty": 4, "committed": 3, "holes": 0, "writing": 1, "uncommitted": 0}
        slot.__exit__(RuntimeError, None, None)
        found = labhub.diagnose("x")
        assert (found.slots["writing"], found.counters["aborts"]) == (1, 1)
        # A producer that dies between the slot and the commit leaves this.
        with segment().open("r+b") as file:
            file.seek(512 + 64 * 128 + 64 * 3)
            file.write(struct.pack("<Q", 2 * 3 + 2))
        assert labhub.diagnose("x").slots == {"empty": 4, "committed": 3, "holes": 0, "writing": 0, "uncommitted": 1}
        assert labhub.diagnose("x", slots=False).slots == {}


def test_a_producer_killed_in_mid_write() -> None:
    def die_in_a_slot(report) -> None:
        p = open_producer("x", NUMBER, capacity=4)
        p.write(0)
        p.slot().__enter__()
        report(p.next_seq)
        time.sleep(60)

    child = Child(die_in_a_slot)
    child.receive()
    assert labhub.diagnose("x").alive
    child.kill()
    found = labhub.diagnose("x")
    assert (found.alive, found.closed, found.pid, found.head) == (False, False, child.pid, 1)
    assert found.slots == {"empty": 2, "committed": 1, "holes": 0, "writing": 1, "uncommitted": 0}
    with open_producer("x", NUMBER, capacity=4) as p:
        assert p.took_over
        found = labhub.diagnose("x")
        assert (found.alive, found.epoch, found.pid, found.counters["takeovers"]) == (True, 2, os.getpid(), 1)


def test_blocked_writes_and_timeouts_are_counted() -> None:
    with (
        open_producer("x", NUMBER, capacity=2, timeout=0.02, evict_after=None) as p,
        open_consumer("x", NUMBER, mode="lossless"),
    ):
        p.write_many([0, 1])
        with pytest.raises(BackpressureTimeout):
            p.write(2)
        counters = labhub.diagnose("x").counters
        assert (counters["blocked"], counters["timeouts"]) == (1, 1)
        assert counters["blocked_ns"] >= 20_000_000


def test_a_reset_begins_at_zero_and_nobody_else_notices() -> None:
    with (
        open_producer("x", NUMBER, capacity=4, evict_after=0.0) as p,
        open_consumer("x", NUMBER) as lossy,
        open_consumer("x", NUMBER, mode="lossless") as lossless,
    ):
        with pytest.raises(RuntimeError):
            with p.slot():
                raise RuntimeError
        p.write_many(range(6))  # the lossless reader does not read, and is evicted
        with pytest.raises(Evicted):
            next(lossless.batches())
        next(lossy.batches())
        before = labhub.diagnose("x")
        assert before.counters["bytes_written"] == 48
        assert (before.counters["evictions"], before.counters["aborts"]) == (1, 1)
        assert [(r.received, r.lost) for r in before.readers] == [(0, 6), (4, 2)]

        labhub.reset_counters("x")
        after = labhub.diagnose("x")
        assert set(after.counters.values()) == {0}
        assert [(r.received, r.lost) for r in after.readers] == [(0, 0), (0, 0)]
        assert (after.head, after.epoch, after.slots) == (before.head, before.epoch, before.slots)
        assert (lossless.lost, lossy.lost, p.stats()["written"]) == (6, 2, 6)

        p.write_many([6, 7])
        assert next(lossless.batches()).seq.tolist() == next(lossy.batches()).seq.tolist() == [6, 7]
        found = labhub.diagnose("x")
        assert found.counters["bytes_written"] == 16
        assert [(r.received, r.lost) for r in found.readers] == [(2, 0), (2, 0)]
        assert (lossless.lost, lossy.lost) == (6, 2)
        with open_consumer("x", NUMBER, mode="lossless"):  # a newcomer's counts are its own
            assert [r.received for r in labhub.diagnose("x").readers] == [2, 0, 2]


def test_a_diagnosis_changes_no_byte() -> None:
    with (
        open_producer("x", NUMBER, capacity=4) as p,
        open_consumer("x", NUMBER, mode="lossless"),
        open_consumer("x", NUMBER),
    ):
        p.write_many([1, 2, 3])
        digest = hashlib.sha256(segment().read_bytes()).digest()
        status = segment().stat()
        labhub.diagnose("x")
        assert hashlib.sha256(segment().read_bytes()).digest() == digest
        now = segment().stat()
        assert (now.st_mtime_ns, now.st_ctime_ns, now.st_size) == (
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_size,
        )


def test_a_closed_segment_that_was_not_removed() -> None:
    p = open_producer("x", NUMBER, capacity=4)
    os.link(segment(), segment("y"))
    p.close()
    found = labhub.diagnose("y")
    assert (found.alive, found.closed) == (False, True)
    segment("y").unlink()


@pytest.mark.parametrize("look", [labhub.diagnose, labhub.reset_counters])
def test_what_is_no_segment(look, private_dirs: Path) -> None:
    with pytest.raises(ChannelNotFound):
        look("x")
    with pytest.raises(InvalidName):
        look("../x")
    with open_producer("x", NUMBER, capacity=4):
        for name in ("foreign", "short", "target"):
            segment(name).touch(0o600)
        segment("foreign").write_bytes(os.urandom(65536))
        segment("short").write_bytes(segment().read_bytes()[:100])
        os.mkfifo(segment("fifo"), 0o600)
        segment("directory").mkdir(0o700)
        segment("symlink").symlink_to(segment())
        try:
            for name, field in (("foreign", "magic"), ("short", "size"), ("fifo", "type"), ("directory", "type")):
                with pytest.raises(IncompatibleSegment) as caught:
                    look(name)
                assert caught.value.field == field
                assert str(segment(name)) in str(caught.value)
            with pytest.raises(SegmentAccessError):
                look("symlink")
        finally:
            segment("directory").rmdir()
            for name in ("foreign", "short", "target", "fifo", "symlink"):
                segment(name).unlink()


def test_another_version() -> None:
    with open_producer("x", NUMBER, capacity=4):
        with segment().open("r+b") as file:
            file.seek(ABI_OFFSET)
            file.write(struct.pack("<I", 7))
        with pytest.raises(VersionMismatch) as caught:
            labhub.diagnose("x")
        assert (caught.value.ours, caught.value.theirs) == (_native.ABI_VERSION, 7)
