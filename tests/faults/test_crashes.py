"""Producers and consumers killed at random moments: nothing torn, nothing unaccounted, nobody blocked for long."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from labhub import Schema, diagnose
from labhub.datablock.consumer import Mode, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from tests.conftest import wait_until
from tests.faults.books import Books
from tests.faults.children import Child, Report, payload
from tests.faults.rounds import Fault

CAPACITY = 8
AHEAD = 8  # slots that a child can write without computing anything
SIZES = (8, 8 * 1024, 128 * 1024)  # words: 64 bytes, 64 KiB, 1 MiB
DEATHS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM)


def slot_of(words: int) -> Schema:
    return Schema.infer(dtype="u8", shape=(words,))


# ------------------------------------------------------------------------------------------------------------ producers

Slots = NDArray[np.uint64]


def one_by_one(p: DataBlockProducer, slots: Slots) -> None:
    for slot in itertools.cycle(slots):
        p.write(slot)
        slot += np.uint64(AHEAD)


def many(p: DataBlockProducer, slots: Slots) -> None:
    while True:
        p.write_many(slots)
        slots += np.uint64(AHEAD)


def in_place(p: DataBlockProducer, slots: Slots) -> None:
    for slot in itertools.cycle(slots):
        with p.slot() as s:
            s.array[...] = slot
        slot += np.uint64(AHEAD)


def aborting(p: DataBlockProducer, slots: Slots) -> None:
    for slot in itertools.cycle(slots):
        with suppress(EOFError), p.slot() as s:
            s.array[: s.array.size // 2] = 0
            raise EOFError("the instrument is gone")
        p.write(slot)
        slot += np.uint64(AHEAD)


WAYS = (one_by_one, many, in_place, aborting)


class Channel:
    """A ring whose producers die one after the other, and readers that live on.

    A lossless reader makes its producers wait most of the time; without one most of them die in mid-copy.
    """

    def __init__(self, words: int, modes: tuple[Mode, ...]) -> None:
        self.name = f"{modes[-1]}-{8 * words}"
        self.words = words
        self.deaths = 0
        self.die_at_once()
        self.books = [Books(open_consumer(self.name, slot_of(words), mode=mode, start="oldest")) for mode in modes]

    def die_at_once(self) -> None:
        with Child(partial(self._produce, lambda *_: signal.pause())) as child:
            child.receive()
        self.deaths += 1

    def producer(self) -> DataBlockProducer:
        return open_producer(self.name, slot_of(self.words), capacity=CAPACITY, timeout=60, evict_after=None)

    def _produce(self, way: Callable[[DataBlockProducer, Slots], None], report: Report) -> None:
        # Made before, so that almost all of the time from the report on is spent in the native copy.
        slots = np.stack([payload(k, self.words) for k in range(AHEAD)])
        with self.producer() as p:
            slots += np.uint64(p.next_seq)
            report(p.epoch)
            report(p.next_seq)
            way(p, slots)

    def die(self, fault: Fault, chance: random.Random) -> None:
        """Let a producer take over, and kill it at any moment of what it writes."""
        way = chance.choice(WAYS)
        head = self.books[0].consumer.head
        with fault.recovery():
            child = Child(partial(self._produce, way))
            epoch, first = child.receive(), child.receive()
        with child:
            assert epoch == self.deaths + 1
            assert head <= first <= head + CAPACITY  # complete slots that were not committed are, by the repair
            ends = time.monotonic() + chance.uniform(0.0, 0.004)
            while time.monotonic() < ends:
                if self.books[-1].consumer.mode == "lossless" and self.books[-1].consumer.lag:
                    self.books[-1].read()
            child.kill(chance.choice(DEATHS))
        self.deaths += 1
        left = diagnose(self.name)
        # An aborted slot has an odd seq as well, and so has the first one if the death before was in mid-write.
        fault.happened(int(way is not aborting and left.head > first and left.slots["writing"]))
        for books in self.books:
            books.catch_up()

    def finish(self) -> None:
        """Take over for the last time; all that was ever produced must be accounted for."""
        with self.producer() as last:
            assert (last.took_over, last.epoch) == (True, self.deaths + 1)
            for books in self.books:
                books.catch_up()
                books.balance()
                assert books.consumer.head == last.next_seq
                assert books.consumer.mode != "lossless" or books.received == last.next_seq
        for books in self.books:
            assert not books.read()
            books.consumer.close()


@pytest.mark.fault(1, quick=150, full=2000, share=2.0, p99=1.0)
def test_01_producer_killed_in_mid_write(fault: Fault) -> None:
    chance = random.Random(20260)
    readers: list[tuple[Mode, ...]] = [("stream",), ("stream", "lossless")]
    channels = [Channel(words, modes) for words in SIZES for modes in readers]
    for _ in fault.each_round():
        chance.choice(channels).die(fault, chance)
    for channel in channels:
        channel.finish()


# ------------------------------------------------------------------------------------------------------------ consumers

HELD = slot_of(32 * 1024)  # 256 KiB: long enough that a kill lands in the copy


def between_reads(report: Report) -> None:
    with open_consumer("x", HELD, mode="lossless") as c:
        report(0)
        next(c.batches(max_slots=1))
        report(1)
        signal.pause()


def in_a_view(report: Report) -> None:
    with open_consumer("x", HELD, mode="lossless") as c:
        report(0)
        with c.slot():
            report(1)
            signal.pause()


def copying(report: Report) -> None:
    with open_consumer("x", HELD, mode="lossless") as c:
        report(0)
        next(c.batches())
        report(1)
        for _ in c.batches():
            pass


def registering(report: Report) -> None:
    report(0)
    report(1)
    while True:
        open_consumer("x", HELD, mode="lossless").close()


class Survivors:
    """A producer that nobody may hold up for long, and a reader that loses nothing."""

    def __init__(self, p: DataBlockProducer) -> None:
        self.p = p
        self.books = Books(open_consumer("x", HELD, mode="lossless"))

    def write(self, n: int) -> None:
        for _ in range(n):
            self.p.write(payload(self.p.next_seq, HELD.shape[0]))
            self.books.read()

    def fill_behind_the_dead(self) -> float:
        """Fill the ring; how long a write found it full (in seconds)."""
        before = self.p.stats()["blocked_ns"]
        self.write(CAPACITY + 1)
        return (self.p.stats()["blocked_ns"] - before) / 1e9

    def fill_and_kill(self, child: Child) -> float:
        """Fill the ring behind a live reader, and kill that one then; for how long it held up the write from there."""
        blocked = self.p.stats()["blocked"]
        dead_at = []

        def kill() -> None:
            wait_until(lambda: self.p.stats()["blocked"] > blocked, 30, "a write that waits")
            child.kill()
            dead_at.append(time.monotonic())

        killer = threading.Thread(target=kill)
        killer.start()
        while self.p.stats()["blocked"] == blocked:  # at most what the ring holds, and one
            self.write(1)
        went_on_at = time.monotonic()
        killer.join(60)
        return max(0.0, went_on_at - dead_at[0])


@pytest.mark.fault(2, quick=60, full=500, p99=0.1)
def test_02_lossless_consumer_killed_while_it_holds_the_ring(fault: Fault) -> None:
    chance = random.Random(38)
    with open_producer("x", HELD, capacity=CAPACITY, timeout=5.0, evict_after=None) as p:
        survivors = Survivors(p)
        evictions = 0
        for _ in fault.each_round():
            reader = chance.choice((between_reads, in_a_view, copying, registering))
            with Child(reader) as child:
                child.receive()
                survivors.write(1)
                child.receive()
                if reader in (between_reads, in_a_view) and chance.random() < 0.5:
                    fault.recovered(survivors.fill_and_kill(child))
                else:
                    survivors.write(chance.randrange(CAPACITY - 1))
                    child.kill()
                    fault.recovered(survivors.fill_behind_the_dead())
            stats = p.stats()
            fault.happened(stats["evictions"] - evictions)
            evictions = stats["evictions"]
            assert stats["consumers"] <= 2, "a dead reader is still in the way"
        assert p.stats()["timeouts"] == 0
        survivors.books.balance()
        assert survivors.books.consumer.lost == 0
        survivors.books.consumer.close()
