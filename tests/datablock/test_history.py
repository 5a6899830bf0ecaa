"""What a snapshot holds, and whether the ring reaches back as far as was asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from subprocess import PIPE

import pytest

from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer

NUMBER = Schema.infer(dtype="i8", units="mV")
SECOND = 1_000_000_000
RING = 8


@pytest.fixture
def producer() -> Iterator[DataBlockProducer]:
    with open_producer("x", NUMBER, capacity=RING) as p:
        yield p


@pytest.fixture
def reader(producer: DataBlockProducer) -> Iterator[DataBlockConsumer]:
    with open_consumer("x", NUMBER) as c:
        yield c


def write_at(producer: DataBlockProducer, *seconds: float) -> None:
    """Write one slot for each time, with its place among them as its value."""
    for k, time in enumerate(seconds):
        with producer.slot() as s:
            s.array[...] = k
            s.timestamp_ns = round((1000 + time) * SECOND)


def test_a_snapshot_says_whether_the_ring_reaches_back_so_far(producer, reader) -> None:
    assert reader.snapshot(last=5).complete
    assert reader.snapshot(seconds=5).complete
    producer.write_many(list(range(5)))
    assert reader.snapshot(last=100).complete  # the channel itself is younger
    assert reader.snapshot(seconds=100).complete
    producer.write_many(list(range(5, RING)))
    assert reader.snapshot(last=100).complete
    assert reader.snapshot(seconds=100).complete
    producer.write(RING)
    for short in (reader.snapshot(last=RING + 1), reader.snapshot(last=100), reader.snapshot(seconds=100)):
        assert not short.complete
        assert short.data.tolist() == list(range(1, RING + 1))
    assert reader.snapshot(last=RING).complete
    assert reader.snapshot(last=3, seconds=100).complete
    assert reader.snapshot(seconds=0).complete
    assert reader.snapshot().complete  # all that the ring holds
    assert not reader.snapshot(seconds=float("inf")).complete


def test_it_is_shown(producer, reader) -> None:
    producer.write_many(list(range(20)))
    whole, short = reader.snapshot(last=2), reader.snapshot(last=9)
    assert repr(whole) == "Batch(x: seq 18-19, 2 of int64, lost=0)"
    assert repr(short) == "Batch(x: seq 12-19, 8 of int64, lost=0, complete=False)"
    assert "complete" not in whole._repr_html_()
    assert "overwritten" in short._repr_html_()
    head, rest = short.split(3)
    assert (head.complete, rest.complete) == (False, True)  # what is missing is before the first slot
    assert dict(short.to_xarray().attrs) == {"channel": "x"}


def test_seconds_reach_as_far_as_times_do(producer, reader) -> None:
    write_at(producer, *range(20))
    assert reader.snapshot(seconds=3).data.tolist() == [16, 17, 18, 19]
    assert reader.snapshot(seconds=6).complete
    assert not reader.snapshot(seconds=7).complete  # there may have been another one of the oldest one's time
    assert reader.snapshot(seconds=7).data.tolist() == list(range(12, 20))
    assert reader.snapshot(last=2, seconds=3).data.tolist() == [18, 19]
    assert reader.snapshot(last=6, seconds=3).data.tolist() == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("times", "seconds", "found"),
    [
        ((0, 1, 2, -3600, -3599, -3598), 1.5, [0, 1, 2, 4, 5]),  # a clock that stepped back
        ((0, 3600, 1, 2, 3), 1.5, [1, 3, 4]),  # one stray time
        ((5, 0, 6), 2, [0, 2]),
        ((0, 10, 0, 10, 0, 10), 1, [1, 3, 5]),
        ((6, 5, 4, 3, 2, 1), 1, [0, 1, 2, 3, 4, 5]),
        ((1, 1, 1, 1), 0, [0, 1, 2, 3]),
        ((0, 1, 1, 1), 0, [1, 2, 3]),
        ((9, 8, 7, 1, 2, 3, 20, 21), 2, [6, 7]),
        ((20, 1, 2, 3, 20, 19, 20, 21), 2, [0, 4, 5, 6, 7]),
    ],
)
def test_times_that_fall_or_stay_are_chosen_rightly(producer, reader, times, seconds, found) -> None:
    write_at(producer, *times)
    assert reader.snapshot(seconds=seconds).data.tolist() == found


def test_times_at_the_ends_of_what_there_is(producer, reader) -> None:
    for time in (-(2**63) + 1, -(2**63) + 5, 2**63 - 1):
        with producer.slot() as s:
            s.timestamp_ns = time
    assert reader.snapshot(seconds=1).seq.tolist() == [2]
    with producer.slot() as s:
        s.timestamp_ns = -(2**63) + 2
    assert reader.snapshot(seconds=1).seq.tolist() == [0, 1, 2, 3]


CRASHING = """
import os
from labhub import Schema
from labhub.datablock.producer import open_producer
p = open_producer("x", Schema.infer(dtype="i8", units="mV"), capacity=8)
for k in range(5):
    with p.slot() as s:
        s.array[...] = k
        s.timestamp_ns = (1000 + k) * 10**9
os._exit(0)
"""


def test_times_may_fall_across_a_takeover() -> None:
    with subprocess.Popen([sys.executable, "-c", CRASHING], stdout=PIPE) as process:
        process.wait(30)
    with open_producer("x", NUMBER, capacity=RING) as p, open_consumer("x", NUMBER) as c:
        assert p.took_over
        write_at(p, -500, -499)  # its clock is behind
        assert c.snapshot(seconds=0.5).seq.tolist() == [0, 1, 2, 3, 4, 6]
        write_at(p, 3, 4)
        assert c.snapshot(seconds=0.5).seq.tolist() == [4, 8]
        assert not c.snapshot(seconds=2000).complete
        assert c.snapshot(seconds=0.5).complete


def test_a_ring_of_another_site_is_as_old_as_its_first_slot() -> None:
    with open_producer("x", NUMBER, capacity=RING, first_seq=1000) as p, open_consumer("x", NUMBER) as c:
        p.write_many(list(range(4)))
        assert c.snapshot(last=100).complete
        assert c.snapshot(seconds=100).complete
        p.write_many(list(range(5)))
        assert not c.snapshot(last=100).complete
