"""A reader written from the document alone reads what a real labhub producer writes in another process."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from labhub import _native
from labhub.datablock.location import segment_directory

from .real_labhub import RealLabhub, is_whole
from .segment_file import ENDED, HEADER_NBYTES, OPEN, REPLACED, BadSegment, Busy, SegmentMap
from .segment_reader import Evicted, SegmentReader, Slot

PATIENCE = 10.0


def read_to_the_end(reader: SegmentReader) -> list[Slot]:
    found: list[Slot] = []
    while reader.wait(PATIENCE):
        found += reader.read()
    return found


def check(found: list[Slot], reader: SegmentReader, produced: int) -> None:
    seqs = [s.seq for s in found]
    assert seqs == sorted(set(seqs))
    assert all(is_whole(s.payload, s.seq) for s in found)
    assert len(found) + reader.lost == reader.received + reader.lost == produced


@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_a_lossy_reader_counts_exactly_what_it_lost(real: RealLabhub, capacity: int) -> None:
    real.ask("produce", name="x", capacity=capacity)
    with SegmentReader(segment_directory(), "x") as reader:
        for _ in range(10):
            real.tell("write", n=1000, at_once=True)
        real.tell("write", n=capacity)
        real.tell("close")
        found = read_to_the_end(reader)
        check(found, reader, 10_000 + capacity)
        assert reader.lost > 0
        assert reader.closed == ENDED


@pytest.mark.parametrize("capacity", [1, 4])
def test_the_slot_exactly_a_ring_behind_is_not_late(real: RealLabhub, capacity: int) -> None:
    real.ask("produce", name="x", capacity=capacity)
    with SegmentReader(segment_directory(), "x") as reader:
        real.ask("write", n=capacity)
        check(reader.read(), reader, capacity)
        assert reader.lost == 0
        real.ask("write", n=capacity + 1)
        assert [s.seq for s in reader.read()] == list(range(capacity + 1, 2 * capacity + 1))
        assert reader.lost == 1
    with SegmentReader(segment_directory(), "x", start="oldest") as late:
        assert [s.seq for s in late.read()] == list(range(capacity + 1, 2 * capacity + 1))
    real.ask("close")


class Interrupted(SegmentReader):
    """A reader in the middle of whose first copy something happens."""

    meanwhile: Callable[[], object] | None = None

    def _copy(self, seq: int) -> Slot | None:
        copied = super()._copy(seq)
        if self.meanwhile is not None:
            self.meanwhile()
            self.meanwhile = None
        return copied


def test_what_is_overwritten_after_the_copy_is_lost(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=4)
    with Interrupted(segment_directory(), "x") as reader:
        real.ask("write", n=4)
        reader.meanwhile = lambda: real.ask("write", n=2)
        assert [s.seq for s in reader.read()] == [2, 3]
        assert (reader.received, reader.lost, reader.cursor) == (2, 2, 4)
        assert [s.seq for s in reader.read()] == [4, 5]
        assert reader.received + reader.lost == 6
    real.ask("close")


def test_a_reader_that_is_evicted_in_mid_copy_believes_nothing_of_it(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=4, timeout=PATIENCE, evict_after=0.02)
    with Interrupted(segment_directory(), "x", lossless=True) as reader:
        real.ask("write", n=4)
        reader.meanwhile = lambda: real.ask("write", n=1)
        with pytest.raises(Evicted) as caught:
            reader.read()
        assert caught.value.lost == reader.lost == reader.cursor == 5
        assert reader.received == 0
    real.ask("close")


def test_lossless_readers_hold_the_producer_up_and_lose_nothing(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=8, timeout=PATIENCE, evict_after=None)
    with SegmentReader(segment_directory(), "x", lossless=True) as one:
        with SegmentReader(segment_directory(), "x", lossless=True) as two:
            real.tell("write", n=500)
            found: list[list[Slot]] = [[], []]
            while min(map(len, found)) < 500:
                for slots, reader in zip(found, (one, two), strict=True):
                    if len(slots) < 500 and reader.wait(PATIENCE):
                        slots += reader.read(3)
            assert real.answer() == 500
            for slots, reader in zip(found, (one, two), strict=True):
                check(slots, reader, 500)
                assert reader.lost == 0
            assert [one.line, two.line] == [0, 1]
            assert one.map.get("SpaceLine", "word") > 0  # the producer was woken, not only patient
        assert real.ask("stats")["blocked"] > 0
        assert real.ask("stats")["consumers"] == 1
    real.ask("close")


def test_a_lossless_reader_that_leaves_lets_the_producer_go_on(
    real: RealLabhub, wait_until: Callable[..., None]
) -> None:
    real.ask("produce", name="x", capacity=4, timeout=PATIENCE, evict_after=None)
    reader = SegmentReader(segment_directory(), "x", lossless=True)
    real.tell("write", n=100)
    wait_until(lambda: reader.map.get("SpaceLine", "producer_waiting"))
    reader.close()
    assert real.answer() == 100
    assert real.ask("stats")["evictions"] == 0
    real.ask("close")


def test_a_stuck_reader_is_evicted_and_knows_what_it_lost(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=8, timeout=PATIENCE, evict_after=0.02)
    with SegmentReader(segment_directory(), "x", lossless=True) as reader:
        real.ask("write", n=5)
        assert len(reader.read(3)) == 3
        assert real.ask("write", n=95) == 100
        assert real.ask("stats")["evictions"] == 1
        with pytest.raises(Evicted) as caught:
            reader.read()
        assert caught.value.lost == reader.lost == 97
        assert reader.cursor == 100
        real.ask("write", n=4)
        assert [s.seq for s in reader.read()] == [100, 101, 102, 103]
        assert reader.received + reader.lost == 104
    real.ask("close")


def test_a_dead_readers_line_is_evicted_at_once(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=4, timeout=PATIENCE, evict_after=None)
    reader = SegmentReader(segment_directory(), "x", lossless=True)
    os.close(reader._fd)  # what the kernel does at its death: the lock is gone, the line says ACTIVE
    assert real.ask("write", n=50) == 50
    assert real.ask("stats")["evictions"] == 1
    with SegmentReader(segment_directory(), "x", lossless=True) as next_one:
        assert next_one.line == 0
        assert next_one._active >> 2 == 2
        real.ask("close")
    reader.map.close()


@pytest.mark.parametrize(("lossless", "places"), [(False, 0), ("single", 1), (True, 64)])
def test_how_many_lossless_readers_there_can_be(real: RealLabhub, lossless: object, places: int) -> None:
    real.ask("produce", name="x", capacity=4, lossless=lossless)
    readers = [SegmentReader(segment_directory(), "x", lossless=True) for _ in range(places)]
    with pytest.raises(Busy):
        SegmentReader(segment_directory(), "x", lossless=True)
    for reader in readers:
        reader.close()
    real.ask("close")


def test_a_takeover_goes_on_where_the_dead_one_was(real: RealLabhub) -> None:
    with RealLabhub() as first:
        first.ask("produce", name="x", capacity=8)
        with SegmentReader(segment_directory(), "x") as reader:
            first.ask("write", n=3)
            assert first.ask("die_in_mid_write") == "open"
            assert reader.producer_alive
            first.kill()
            assert not reader.producer_alive
            assert reader.map.slot(3, "seq") == 2 * 3 + 1  # it really died in mid-write
            assert [s.epoch for s in reader.read()] == [1, 1, 1]
            assert real.ask("produce", name="x", capacity=8) == {"took_over": True, "epoch": 2}
            real.ask("write", n=2)
            found = reader.read()
            assert [(s.seq, s.epoch) for s in found] == [(3, 2), (4, 2)]
            assert all(is_whole(s.payload, s.seq) for s in found)
            assert reader.epoch == 2
            real.ask("close")
            assert not reader.wait(PATIENCE)


def test_a_channel_of_another_shape_replaces_a_dead_one(real: RealLabhub) -> None:
    with RealLabhub() as first:
        first.ask("produce", name="x", capacity=8)
        with SegmentReader(segment_directory(), "x") as reader:
            first.ask("write", n=3)
            first.kill()
            assert reader.closed == OPEN
            real.ask("produce", name="x", capacity=9)
            assert len(read_to_the_end(reader)) == 3
            assert reader.closed == REPLACED
            with SegmentReader(segment_directory(), "x") as other:
                assert other.instance_id != reader.instance_id
            real.ask("close")


def test_the_tools_see_this_reader_and_this_reader_sees_what_they_see(real: RealLabhub) -> None:
    real.ask("produce", name="x", capacity=4)
    with SegmentReader(segment_directory(), "x") as reader, SegmentReader(segment_directory(), "x", lossless=True):
        real.ask("write", n=3)
        reader.read(2)
        seen = _native.probe(segment_directory(), "x")
        lines = {line["line"]: line for line in seen["consumers"]}  # type: ignore[attr-defined]
        assert lines[64] == {
            "line": 64, "lossless": False, "alive": True, "evicted": False, "pid": os.getpid(),
            "cursor": 2, "lag": 1, "lost": 0, "received": 2,
        }  # fmt: skip
        assert lines[0]["lossless"]
        get = reader.map.get
        assert {
            "head": get("CommitLine", "commit"),
            "first_seq": get("CommitLine", "first_seq"),
            "created_ns": get("CommitLine", "created_ns"),
            "capacity": get("Geometry", "capacity"),
            "slot_nbytes": get("Geometry", "slot_nbytes"),
            "stride": get("Geometry", "stride"),
            "nbytes": get("Geometry", "total_nbytes"),
            "instance_id": reader.instance_id,
            "schema_hash": reader.map.raw("Identity", "schema_hash"),
            "policy": get("Identity", "policy"),
            "sync_policy": get("Identity", "sync"),
            "checksum_policy": get("Identity", "checksum"),
            "pid": get("OwnerLine", "pid"),
            "start_time": get("OwnerLine", "start_time"),
            "epoch": get("OwnerLine", "epoch"),
            "commit_ns": reader.map.slot(2, "timestamp_ns"),
            "alive": reader.producer_alive,
        }.items() <= seen.items()
        assert seen["counters"]["bytes_written"] == get("CounterLine", "bytes_written")  # type: ignore[index]
        with pytest.raises(TypeError):
            reader.map.payload[0] = 1
    real.ask("close")


@pytest.mark.parametrize(
    "field", ["magic", "abi", "header_nbytes", "capacity", "stride", "payload_offset", "total_nbytes"]
)
def test_a_wrong_header_is_refused_by_name(real: RealLabhub, field: str) -> None:
    real.ask("produce", name="x", capacity=4)
    path = os.path.join(segment_directory(), "x")
    with SegmentReader(segment_directory(), "x") as reader:
        right = reader.map.get("Geometry", field)
        reader.map.put("Geometry", field, 0)
        with pytest.raises(BadSegment, match=f"^{field}$"):
            SegmentReader(segment_directory(), "x")
        reader.map.put("Geometry", field, right)
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.truncate(HEADER_NBYTES - 1)
        with pytest.raises(BadSegment, match=r"^size$"):
            SegmentMap(file.fileno())
        file.truncate(size)
    os.unlink(path)
    os.symlink("elsewhere", path)
    with pytest.raises(OSError) as caught:
        SegmentReader(segment_directory(), "x")
    assert caught.value.errno == errno.ELOOP
    os.unlink(path)
