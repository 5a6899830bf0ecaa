"""The time of a slot: its own, whatever number that is, or the one that its call gave it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labhub import Schema, _native
from labhub.datablock.config import Checksum
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import BackpressureTimeout, InvalidArgument

NUMBER = Schema.infer(dtype="i8")
MS = 1_000_000
BLOCKS = Schema.infer(np.zeros(10, "f4"), dims="time", sample_rate=1000)
"""Blocks of 10 ms."""

CHECKSUMS: list[Checksum] = ["none", "manual", "enforced"]


def times_of(consumer: DataBlockConsumer, n: int) -> list[int]:
    return next(consumer.batches(min_slots=n, timeout=5)).timestamp_ns.tolist()


@pytest.mark.parametrize("checksum", CHECKSUMS)
@pytest.mark.parametrize("time_ns", [0, -1, 1, -100_000_000, 2**63 - 1, -(2**63) + 1, np.int64(0), np.uint8(7)])
def test_every_number_is_a_time(time_ns: int, checksum: Checksum) -> None:
    with open_producer("x", NUMBER, checksum=checksum) as p, open_consumer("x", NUMBER) as c:
        with p.slot() as s:
            s.array[...] = 1
            s.timestamp_ns = time_ns
        batch = next(c.batches(timeout=1))
        assert batch.timestamp_ns.tolist() == [time_ns]
        assert batch.time[0] == np.datetime64(int(time_ns), "ns")
        assert batch.to_xarray().time.values[0] == np.datetime64(int(time_ns), "ns")


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_without_a_time_it_is_that_of_the_publication(checksum: Checksum) -> None:
    with open_producer("x", NUMBER, checksum=checksum) as p, open_consumer("x", NUMBER) as c:
        for time_ns in (None, 0, None):
            with p.slot() as s:
                assert s.timestamp_ns is None
                s.array[...] = 1
                s.timestamp_ns = time_ns
        p.write(1)
        first, zero, third, fourth = times_of(c, 4)
        assert zero == 0
        assert abs(first - time.time_ns()) < 60_000 * MS
        assert first <= third <= fourth


@pytest.mark.parametrize("time_ns", [True, False, np.bool_(1), 0.0, 1.5, np.float64(0), "0", 2**63, -(2**63), -(2**70)])
@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_what_is_no_time_publishes_nothing(time_ns: Any, checksum: Checksum) -> None:
    with open_producer("x", NUMBER, checksum=checksum) as p:
        with pytest.raises(InvalidArgument, match="timestamp_ns is a whole number"), p.slot() as s:
            s.timestamp_ns = time_ns
        assert p.next_seq == 0
        assert p.write(1) == 0


@pytest.mark.parametrize("time_ns", [np.datetime64(0, "ns"), np.timedelta64(0, "ns"), np.datetime64("NaT")])
def test_a_numpy_time_is_refused_with_its_conversion(time_ns: Any) -> None:
    with open_producer("x", NUMBER) as p:
        with pytest.raises(InvalidArgument, match="astype"), p.slot() as s:
            s.timestamp_ns = time_ns
        assert p.next_seq == 0


@pytest.mark.parametrize("nbytes", [True, 1.0, None, -1, "8"])
def test_a_length_that_is_none_publishes_nothing(nbytes: Any) -> None:
    with open_producer("x", NUMBER) as p:
        with pytest.raises(InvalidArgument, match="nbytes"), p.slot() as s:
            s.nbytes = nbytes
        assert p.next_seq == 0


def test_a_time_far_ahead_does_not_move_the_clock() -> None:
    with open_producer("x", NUMBER) as p, open_consumer("x", NUMBER) as c:
        with p.slot() as s:
            s.timestamp_ns = 2**62
        p.write(1)
        p.write_many([1, 2])
        assert max(times_of(c, 4)[1:]) < time.time_ns() + 60_000 * MS


def test_times_of_the_native_interface() -> None:
    with open_producer("x", NUMBER) as p, open_consumer("x", NUMBER) as c:
        for time_ns in (0, -5, _native.NOW):
            p._native.write(bytes(8), -1, -1, time_ns)
        p._native.write(bytes(8), -1, -1)
        for time_ns in (0, _native.NOW):
            p._native.claim(-1, -1)
            p._native.commit(8, time_ns)
        p._native.claim(-1, -1)
        p._native.commit(8)
        times = times_of(c, 7)
        assert [times[k] for k in (0, 1, 4)] == [0, -5, 0]
        assert times[2] <= times[3] <= times[5] <= times[6]
        assert abs(times[2] - time.time_ns()) < 60_000 * MS


@pytest.mark.parametrize("time_ns", [0, -1, -(2**63)])
def test_copies_keep_every_time(time_ns: int) -> None:
    with (
        open_producer("x", NUMBER) as p,
        open_consumer("x", NUMBER) as c,
        open_producer("y", NUMBER) as q,
        open_consumer("y", NUMBER) as d,
    ):
        p.write(7)
        batch = next(c.batches(timeout=1))
        headers = batch.headers.copy()
        headers["timestamp_ns"] = time_ns
        q.write_copies(batch.data, headers)
        assert times_of(d, 1) == [time_ns]


# --------------------------------------------------------------------------------------------------- many at once


def written_past_a_pause(write: Callable[[], Any], p: DataBlockProducer, c: DataBlockConsumer, n: int) -> list[int]:
    """Write n slots into a full ring, of which the reader empties a part only after a while; their times."""
    writer = threading.Thread(target=write)
    writer.start()
    deadline = time.monotonic() + 20
    while not p.stats()["blocked"] and time.monotonic() < deadline:
        pass
    began = time.monotonic_ns()
    while time.monotonic_ns() - began < 50 * MS:  # a pause that would show in the times
        pass
    times: list[int] = []
    for batch in c.batches(max_slots=2, timeout=5):
        times += batch.timestamp_ns.tolist()
        if len(times) >= n:
            break
    writer.join(60)
    return times


@pytest.mark.parametrize("as_list", [False, True], ids=["array", "list"])
@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_blocks_keep_their_distance_however_long_the_call_waits(checksum: Checksum, as_list: bool) -> None:
    records: Any = np.zeros((64, 10), "f4")
    with (
        open_producer("x", BLOCKS, capacity=16, checksum=checksum, evict_after=None) as p,
        open_consumer("x", BLOCKS, mode="lossless") as c,
    ):
        before = time.time_ns()
        times = written_past_a_pause(lambda: p.write_many(list(records) if as_list else records), p, c, 64)
    assert np.diff(times).tolist() == [10 * MS] * 63
    assert times[-1] - times[0] == 630 * MS
    assert before - 1000 * MS < times[-1]


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_slots_that_are_no_blocks_get_the_time_of_the_call(checksum: Checksum) -> None:
    with (
        open_producer("x", NUMBER, capacity=16, checksum=checksum, evict_after=None) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        times = written_past_a_pause(lambda: p.write_many(np.arange(64)), p, c, 64)
    assert len(set(times)) == 1


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_calls_that_come_faster_than_their_blocks_were_measured(checksum: Checksum) -> None:
    with open_producer("x", BLOCKS, capacity=100, checksum=checksum) as p, open_consumer("x", BLOCKS) as c:
        for _ in range(3):
            p.write_many(np.zeros((12, 10), "f4"))
        p.write(np.zeros(10, "f4"))
        times = np.array(times_of(c, 37))
        assert (np.diff(times) >= 0).all()
        assert times[-1] <= time.time_ns() + 60_000 * MS
        for k in (12, 24):  # the time since the call before, in even parts
            steps = np.diff(times[k : k + 12])
            assert (steps == steps[0]).all()
            assert 0 <= steps[0] <= 10 * MS


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_the_rest_of_a_call_that_timed_out_goes_on_behind_it(checksum: Checksum) -> None:
    blocks = np.zeros((12, 10), "f4")
    with (
        open_producer("x", BLOCKS, capacity=8, timeout=0.01, checksum=checksum, evict_after=None) as p,
        open_consumer("x", BLOCKS, mode="lossless") as c,
    ):
        with pytest.raises(BackpressureTimeout) as caught:
            p.write_many(blocks)
        written = caught.value.written  # type: ignore[attr-defined]
        times = times_of(c, written)
        p.write_many(blocks[written:])
        times += times_of(c, 12 - written)
    steps = np.diff(times)
    assert (steps >= 0).all()
    assert (np.delete(steps, written - 1) == 10 * MS).all()
