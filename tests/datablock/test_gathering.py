"""Batches that are larger than the ring: gathered beside it, without a loss and without a false seq."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock.config import ChecksumPolicy
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import ChecksumError, Evicted, InvalidArgument, ProducerGone, TimeoutExpired
from tests.datablock.interrupts import STEPS, interrupt_at

NUMBER = Schema.infer(dtype="i8", units="mV")
RING = 13


@contextmanager
def writing(p: DataBlockProducer, n: int, run: int = 1) -> Iterator[None]:
    """Write the numbers 0 to n - 1 in a thread, then close the channel."""

    def write() -> None:
        for first in range(0, n, run):
            p.write_many(list(range(first, min(n, first + run))))
        p.close()

    thread = threading.Thread(target=write)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def producer() -> Iterator[DataBlockProducer]:
    with open_producer("x", NUMBER, capacity=RING) as p:
        yield p


@pytest.mark.parametrize("capacity", [1, 2, 3, RING, 99, 100, 101, 150])
@pytest.mark.parametrize("run", [1, 50])
def test_a_lossless_reader_gets_whole_batches_and_loses_nothing(capacity: int, run: int) -> None:
    with (
        open_producer("x", NUMBER, capacity=capacity, timeout=30, evict_after=20) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
        writing(p, 1030, run),
    ):
        batches = list(c.batches(min_slots=100, max_slots=100, timeout=30))
        assert [len(b) for b in batches] == [100] * 10 + [30]
        assert np.concatenate([b.data for b in batches]).tolist() == list(range(1030))
        assert np.concatenate([b.seq for b in batches]).tolist() == list(range(1030))
        assert {b.lost for b in batches} == {0}
        assert c.lost == 0


@pytest.mark.parametrize("capacity", [2, RING, 64])
def test_a_lossy_reader_counts_what_it_loses_and_its_batches_have_no_holes(capacity: int) -> None:
    n = 20_000
    with open_producer("x", NUMBER, capacity=capacity) as p, open_consumer("x", NUMBER) as c, writing(p, n):
        following, received, lost = 0, 0, 0
        for b in c.batches(min_slots=100, max_slots=100, timeout=30):
            assert b.seq[0] == following + b.lost
            assert (np.diff(b.seq) == 1).all()
            assert b.data.tolist() == b.seq.tolist()
            following, received, lost = int(b.seq[-1]) + 1, received + len(b), lost + b.lost
            assert len(b) <= 100
        assert received + c.lost == n
        assert lost <= c.lost  # the last ones can be lost without a batch behind them


def test_slots_that_came_before_a_loss_are_a_shorter_batch(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        batches = c.batches(min_slots=20, max_slots=20, timeout=0.01)
        producer.write_many(list(range(10)))
        with pytest.raises(TimeoutExpired, match="only 10 of 20 slots"):
            next(batches)
        producer.write_many(list(range(10, 40)))  # 13 of 30 are still there
        first, second = next(batches), None
        assert (first.seq.tolist(), first.lost) == (list(range(10)), 0)
        with pytest.raises(TimeoutExpired, match="only 13 of 20 slots"):
            next(batches)
        producer.write_many(list(range(40, 50)))
        second = next(batches)
        assert (second.seq.tolist(), second.lost) == (list(range(27, 47)), 17)
        assert c.lost == 17


def test_a_timeout_keeps_what_came_for_whoever_asks_next(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER, mode="lossless") as c:
        for first in range(0, 30, 10):
            producer.write_many(list(range(first, first + 10)))
            with pytest.raises(
                TimeoutExpired, match=f"only {first + 10} of 50 slots, which wait for the next call, on 'x'"
            ):
                next(c.batches(min_slots=50, timeout=0.01))
        assert next(c.batches(max_slots=4)).data.tolist() == [0, 1, 2, 3]
        assert next(c.batches(max_slots=10, min_slots=10)).data.tolist() == list(range(4, 14))
        producer.write_many([30, 31, 32, 33])
        assert next(c.batches(min_slots=20, max_slots=20, timeout=1)).data.tolist() == list(range(14, 34))
        with pytest.raises(TimeoutExpired, match="nothing new"):
            next(c.batches(min_slots=50, timeout=0.01))


def test_more_than_the_least_comes_if_it_is_there(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER, mode="lossless") as c:
        for first in (0, 10):
            producer.write_many(list(range(first, first + 10)))
            with pytest.raises(TimeoutExpired):
                next(c.batches(min_slots=22, timeout=0.0))
        producer.write_many(list(range(20, 25)))
        assert next(c.batches(min_slots=22)).data.tolist() == list(range(25))


def test_the_end_of_the_stream_hands_out_the_rest(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many(list(range(10)))
        producer.close()
        assert [b.data.tolist() for b in c.batches(min_slots=100)] == [list(range(10))]


def test_each_batch_owns_its_memory(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER, mode="lossless") as c, writing(producer, 90):
        batches = list(c.batches(min_slots=30, max_slots=30, timeout=10))
        batches[0].data[:] = -1
        assert [b.data[0] for b in batches] == [-1, 30, 60]
        assert not any(np.shares_memory(a.data, b.data) for a, b in pairwise(batches))


def test_one_array_takes_batches_larger_than_the_ring(producer: DataBlockProducer) -> None:
    out = np.zeros(30, "i8")
    with open_consumer("x", NUMBER, mode="lossless") as c, writing(producer, 75):
        seen, headers = [], []
        for b in c.batches(min_slots=30, out=out, timeout=10):
            assert np.shares_memory(b.data, out)
            assert b.data.tolist() == out[: len(b)].tolist()
            seen.append(b.data.tolist())
            headers.append(b.seq)
        assert seen == [list(range(30)), list(range(30, 60)), list(range(60, 75))]
        assert [h.tolist() for h in headers] == seen


def test_an_array_stays_as_it_is_until_the_batch_is_whole(producer: DataBlockProducer) -> None:
    out = np.full(30, -1, "i8")
    with open_consumer("x", NUMBER, mode="lossless") as c:
        producer.write_many(list(range(10)))
        with pytest.raises(TimeoutExpired):
            next(c.batches(min_slots=30, out=out, timeout=0.0))
        assert (out == -1).all()
        out[:] = 7  # whoever gave it may use it meanwhile
        producer.write_many(list(range(10, 20)))
        with pytest.raises(TimeoutExpired):
            next(c.batches(min_slots=30, out=out, timeout=0.0))
        producer.write_many(list(range(20, 30)))
        assert next(c.batches(min_slots=30, out=out)).data.tolist() == list(range(30))


def test_datasets_are_gathered_too() -> None:
    schema = Schema.infer(np.zeros((10, 2), "f4"), dims=("time", "channel"), sample_rate=1000)
    with (
        open_producer("x", schema, capacity=3, timeout=30, evict_after=20) as p,
        open_consumer("x", schema, mode="lossless") as c,
    ):
        thread = threading.Thread(target=lambda: [p.write(np.full((10, 2), k)) for k in range(8)])
        thread.start()
        ds = next(c.datasets(min_slots=8, timeout=10))
        thread.join(60)
        assert ds.value.shape == (80, 2)
        assert ds.value.values[::10, 0].tolist() == list(range(8))


PRODUCER = """
import os
from labhub import Schema
from labhub.datablock.producer import open_producer
p = open_producer("x", Schema.infer(dtype="i8", units="mV"), capacity=13)
for line in iter(input, "die"):
    print(p.write_many(list(range(*map(int, line.split())))), flush=True)
os._exit(0)
"""


def test_a_takeover_ends_a_batch() -> None:
    with subprocess.Popen([sys.executable, "-c", PRODUCER], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def tell(line: str) -> None:
            print(line, file=process.stdin, flush=True)
            assert process.stdout.readline() or line == "die"

        tell("0 1")
        with open_consumer("x", NUMBER, mode="lossless", start="oldest") as c:
            batches = c.batches(min_slots=20, max_slots=20, timeout=0.01)
            tell("1 4")
            with pytest.raises(TimeoutExpired):
                next(batches)
            tell("4 7")
            tell("die")
            process.wait(10)
            with pytest.raises(TimeoutExpired, match=r"only 7 of 20 slots.*; its producer has died"):
                next(batches)
            with open_producer("x", NUMBER, capacity=RING) as successor:
                assert successor.took_over
                successor.write_many(list(range(7, 13)))
                first = next(batches)
                assert (first.data.tolist(), first.epoch, first.lost) == (list(range(7)), 1, 0)
                with pytest.raises(TimeoutExpired):
                    next(batches)
                successor.write_many(list(range(13, 20)))
                successor.close()
                rest = next(batches)
                assert (rest.data.tolist(), rest.epoch, rest.lost) == (list(range(7, 20)), 2, 0)


def test_whoever_waits_for_a_dead_producer_gets_the_rest_first() -> None:
    with subprocess.Popen([sys.executable, "-c", PRODUCER], stdin=PIPE, stdout=PIPE, text=True) as process:
        process.communicate("0 9\ndie\n", timeout=30)
    with open_consumer("x", NUMBER, start="oldest") as c:
        batches = c.batches(min_slots=20, until_gone=True)
        assert next(batches).data.tolist() == list(range(9))
        with pytest.raises(ProducerGone):
            next(batches)
    open_producer("x", NUMBER, capacity=RING).close()  # takes the segment over and away


def test_what_came_before_an_eviction_is_handed_out_before_it_is_told() -> None:
    with open_producer("x", NUMBER, capacity=4, evict_after=0.0) as p, open_consumer("x", NUMBER, mode="lossless") as c:
        batches = c.batches(min_slots=10, max_slots=10, timeout=0.0)
        p.write_many([0, 1, 2])
        with pytest.raises(TimeoutExpired):
            next(batches)
        p.write_many([3, 4, 5, 6, 7, 8])
        assert next(batches).data.tolist() == [0, 1, 2]
        with pytest.raises(Evicted) as caught:
            next(batches)
        assert caught.value.lost == 6
        p.write_many([9])
        with pytest.raises(TimeoutExpired):
            next(batches)
        p.close()
        last = next(batches)
        assert (last.data.tolist(), last.lost, c.lost) == ([9], 0, 6)


def damage(p: DataBlockProducer, seq: int) -> None:
    payload = p._native.mapping.payload()
    payload[seq % p.capacity * (len(payload) // p.capacity)] ^= 1


def test_a_corrupt_slot_ends_a_batch_and_is_told_behind_it() -> None:
    with (
        open_producer("x", NUMBER, capacity=8, checksum=ChecksumPolicy.ENFORCED) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        batches = c.batches(min_slots=12, max_slots=12, timeout=0.0)
        p.write_many(list(range(6)))
        with pytest.raises(TimeoutExpired):
            next(batches)
        p.write_many(list(range(6, 12)))
        damage(p, 8)
        assert next(batches).data.tolist() == list(range(8))
        with pytest.raises(ChecksumError) as caught:
            next(batches)
        assert caught.value.seq == 8
        with pytest.raises(TimeoutExpired, match="only 3 of 12"):
            next(batches)
        p.write_many(list(range(12, 18)))
        with pytest.raises(TimeoutExpired, match="only 9 of 12"):
            next(batches)
        p.write_many(list(range(18, 24)))
        found = next(batches)
        assert (found.data.tolist(), found.lost, c.corrupt, c.lost) == (list(range(9, 21)), 0, 1, 0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"mode": "latest", "min_slots": 100}, "gathers no slots"),
        ({"min_slots": 10**15}, r"would take .* of memory"),
        ({"min_slots": 100, "max_slots": 50}, "more than max_slots"),
    ],
)
def test_what_cannot_be_gathered_is_refused_at_the_call(producer: DataBlockProducer, options: Any, why: str) -> None:
    with (
        open_consumer("x", NUMBER, mode=options.pop("mode", "stream")) as c,
        pytest.raises(InvalidArgument, match=why),
    ):
        c.batches(**options)


def test_the_newest_slot_may_still_wait_for_others(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER, mode="latest") as c:
        producer.write_many(list(range(RING)))
        batch = next(c.batches(min_slots=RING, timeout=1))
        assert (batch.data.tolist(), batch.lost) == ([RING - 1], RING - 1)


def test_asyncio_gathers_and_a_cancelled_wait_loses_nothing(producer: DataBlockProducer) -> None:
    async def read(c: DataBlockConsumer) -> list[list[int]]:
        producer.write_many(list(range(10)))
        waiting = asyncio.ensure_future(anext(c.batches(min_slots=25, max_slots=25)))
        while c.lag:  # until they are in the reader's memory
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        producer.write_many(list(range(10, 20)))
        with pytest.raises(TimeoutExpired):
            await anext(c.batches(min_slots=25, max_slots=25, timeout=0.01))
        producer.write_many(list(range(20, 30)))
        producer.close()
        return [b.data.tolist() async for b in c.batches(min_slots=25, max_slots=25)]

    with open_consumer("x", NUMBER, mode="lossless") as c:
        assert asyncio.run(read(c)) == [list(range(25)), list(range(25, 30))]


N = 6
"""Slots of each round of an interrupted iteration, in a ring of 16: more than 8 are gathered."""


def gathered(c: Any, seen: list[int]) -> None:
    for batch in c.batches(max_slots=9, min_slots=9, timeout=0.0):
        assert batch.headers.shape == (9,)  # no call into labhub, where the next Ctrl-C would come
        seen += batch.headers["seq"].tolist()


def into_one_array(c: Any, seen: list[int]) -> None:
    out = np.zeros(20, "i8")
    for batch in c.batches(min_slots=20, timeout=0.0, out=out):
        assert batch.data.tolist() == out[: batch.data.size].tolist()
        seen += batch.headers["seq"].tolist()


def as_datasets(c: Any, seen: list[int]) -> None:
    for dataset in c.datasets(max_slots=20, min_slots=12, timeout=0.0):
        seen += dataset.seq.values.tolist()


@pytest.mark.parametrize("checksum", [ChecksumPolicy.NONE, ChecksumPolicy.ENFORCED], ids=["plain", "checksums"])
@pytest.mark.parametrize("statement", [gathered, into_one_array, as_datasets])
def test_a_ctrl_c_anywhere_in_a_gathered_batch_loses_nothing(checksum: ChecksumPolicy, statement: Any) -> None:
    with (
        open_producer("x", NUMBER, capacity=16, checksum=checksum) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        seen: list[int] = []
        for step in range(STEPS):
            p.write_many([k % 1000 for k in range(p.next_seq, p.next_seq + N)])
            was = True
            try:
                with interrupt_at(step):
                    statement(c, seen)
            except KeyboardInterrupt:
                pass
            except TimeoutExpired:
                was = False
            with pytest.raises(TimeoutExpired):
                statement(c, seen)
            assert seen == list(range(len(seen)))
            assert len(seen) + 30 >= p.next_seq
            if not was and step > 300:
                break
        assert c.lost == 0
        with pytest.raises(TimeoutExpired):
            for batch in c.batches(timeout=0.0):
                seen += batch.seq.tolist()
        assert seen == list(range(p.next_seq))
