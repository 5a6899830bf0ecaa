"""Processes that are stopped and go on later: they are not dead, and hold up nobody for long."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from labhub import Schema, diagnose
from labhub.cli.sampling import Sampler
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import BackpressureTimeout, ChannelBusy, Evicted, TimeoutExpired
from labhub.hub import Hub, connect, start_broker, stop_broker
from labhub.protocol.messages import HEARTBEAT_EXPIRY, TAKEOVER_GRACE
from tests.conftest import wait_until
from tests.faults.books import Books
from tests.faults.children import Child, Report, is_stopped, payload, stopped
from tests.faults.rounds import Fault

# ------------------------------------------------------------------------------------------------------ 4: the producer

WORDS = 8
FRAME = Schema.infer(dtype="u8", shape=(WORDS,))
CAPACITY = 8


@pytest.fixture
def broker() -> Iterator[None]:
    """A broker in a process of its own: a child that is forked here inherits nothing of it."""
    start_broker(endpoint="tcp://127.0.0.1:0")
    yield
    stop_broker()


def measure(report: Report) -> None:
    with connect() as hub, hub.producer("x", dtype="u8", shape=WORDS) as p:
        report(p.epoch)
        while True:
            p.write(payload(p.next_seq, WORDS))
            time.sleep(0.001)  # the pace of an instrument


def stays_stalled(hub: Hub, pid: int, seconds: float) -> None:
    """While it is stopped, it is never taken for dead, and nobody gets its channel."""
    ends = time.monotonic() + seconds
    wait_until(lambda: hub.find("x").liveness == "stalled", 30, "a stalled producer")
    (sample,) = Sampler("default", hub.channels).look().channels  # what `labhub top` shows
    assert (sample.where, sample.liveness, sample.pid) == ("here", "stalled", pid)
    while True:
        for steal in (partial(open_producer, "x", FRAME), partial(hub.producer, "x", dtype="u8", shape=WORDS)):
            with pytest.raises(ChannelBusy, match=str(pid)) as caught:
                steal()
            assert caught.value.pid == pid
        (channel,) = hub.channels()
        assert (channel.name, channel.liveness, channel.producer_pid) == ("x", "stalled", pid)
        if time.monotonic() > ends:
            return
        time.sleep(0.2)  # looks again for as long as the test is told to


@pytest.mark.fault(4, share=0.5, p99=5.0)
def test_04_producer_stopped_for_longer_than_the_liveness_time(fault: Fault, broker: None) -> None:
    # Longer than any time of the broker, for which a stopped process must not lose its place.
    hold = HEARTBEAT_EXPIRY + TAKEOVER_GRACE + 1.0 if fault.torture else 0.0
    with Child(measure) as child, connect() as hub:
        assert child.receive() == 1
        with hub.consumer("x") as lossy, hub.consumer("x", mode="lossless") as lossless:
            for _ in fault.each_round():
                with stopped(child.pid):
                    stays_stalled(hub, child.pid, hold)
                    fault.happened()
                    for c in (lossy, lossless):
                        while c.lag:
                            next(c.batches())
                        with pytest.raises(TimeoutExpired, match=r"within 0.05 s$"):  # and not: its producer has died
                            next(c.batches(timeout=0.05, until_gone=True))
                    head = lossless.head
                with fault.recovery():
                    first = next(lossless.batches(timeout=30))
                    assert (first.seq[0], first.epoch) == (head, 1)
                    wait_until(lambda: hub.find("x").liveness == "alive", 30, "a producer that lives")
                assert diagnose("x").pid == child.pid
        child.kill()


# ------------------------------------------------------------------------------------------------------ 5: the consumer

PATIENCE = 0.1  # s; how long a write waits, or an eviction
UNHURRIED = 60.0  # s


def read_for_ever(report: Report) -> None:
    """Enter everything into the books; what an eviction cost is reported."""
    with open_consumer("x", FRAME, mode="lossless") as c:
        books = Books(c)
        report(0)
        while True:
            try:
                books.read()
            except Evicted as evicted:
                books.enter(evicted)
                report(evicted.lost)


class Ring:
    """A producer, and a lossy observer in whose books nothing may ever be missing."""

    def __init__(self, p: DataBlockProducer) -> None:
        self.p = p
        self.observer = Books(open_consumer("x", FRAME))

    def write(self, n: int) -> None:
        for _ in range(n):
            self.p.write(payload(self.p.next_seq, WORDS))
            self.observer.read()

    def lag(self, pid: int) -> int:
        (reader,) = (r for r in diagnose("x").readers if r.pid == pid)
        return reader.lag

    def fill_behind(self, pid: int) -> None:
        self.write(CAPACITY - self.lag(pid))

    def finish(self) -> None:
        self.observer.balance()
        assert self.observer.consumer.lost == 0
        self.observer.consumer.close()


@pytest.mark.fault(5, quick=10, full=100, share=0.5, p99=0.1)
def test_05_lossless_consumer_stopped_and_the_write_times_out(fault: Fault) -> None:
    with open_producer("x", FRAME, capacity=CAPACITY, evict_after=None) as p, Child(read_for_ever) as child:
        child.receive()
        ring = Ring(p)
        for timeouts in fault.each_round():
            with stopped(child.pid):
                ring.fill_behind(child.pid)
                p.timeout = PATIENCE
                began = time.monotonic()
                with pytest.raises(BackpressureTimeout) as caught:
                    ring.write(1)
                fault.recovered(time.monotonic() - began - PATIENCE)
                assert (caught.value.pid, caught.value.lag) == (child.pid, CAPACITY)
                assert (p.next_seq, p.stats()["timeouts"]) == (ring.observer.expected, timeouts + 1)
                fault.happened()
            p.timeout = UNHURRIED
            ring.write(2 * CAPACITY)  # the reader goes on, and has lost nothing
        wait_until(lambda: ring.lag(child.pid) == 0, UNHURRIED)
        assert p.stats()["evictions"] == 0
        child.kill()
        ring.finish()


@pytest.mark.fault(5, quick=10, full=100, share=0.5, p99=0.1)
def test_05_lossless_consumer_stopped_and_evicted(fault: Fault) -> None:
    with (
        open_producer("x", FRAME, capacity=CAPACITY, timeout=UNHURRIED, evict_after=PATIENCE) as p,
        Child(read_for_ever) as child,
    ):
        child.receive()
        ring = Ring(p)
        for evictions in fault.each_round():
            with stopped(child.pid):
                cursor = p.next_seq - ring.lag(child.pid)
                ring.fill_behind(child.pid)
                before = p.stats()["blocked_ns"]
                ring.write(2 * CAPACITY)
                fault.recovered((p.stats()["blocked_ns"] - before) / 1e9 - PATIENCE)
                assert p.stats()["evictions"] == evictions + 1
                fault.happened()
            assert child.receive() == p.next_seq - cursor
            p.evict_after = None
            ring.write(2 * CAPACITY)
            p.evict_after = PATIENCE
        wait_until(lambda: ring.lag(child.pid) == 0, UNHURRIED)
        child.kill()
        ring.finish()


# ---------------------------------------------------------------------------------------------- 6: the evicted wakes up

BIG_WORDS = 2 * 1024 * 1024
BIG = Schema.infer(dtype="u8", shape=(BIG_WORDS,))  # 16 MiB: four of them take long enough to copy
BIG_CAPACITY = 4
COPIED = BIG_CAPACITY * BIG.slot_nbytes
MARGIN = 4 << 20  # bytes; memory comes in pages of up to 2 MiB
HANDED_OUT = 2**63


def copy(c: DataBlockConsumer) -> None:
    wait_until(lambda: c.lag == BIG_CAPACITY, UNHURRIED)  # with `min_slots` they would be read in parts, as they come
    next(c.batches(max_slots=BIG_CAPACITY))


def hold_a_view(c: DataBlockConsumer) -> None:
    with c.slot() as s:
        os.kill(os.getpid(), signal.SIGSTOP)
        s.array.sum()


def rest_between_reads(c: DataBlockConsumer) -> None:
    c.latest()
    os.kill(os.getpid(), signal.SIGSTOP)
    next(c.batches())


Work = Callable[[DataBlockConsumer], None]


def be_evicted(work: Work, report: Report) -> None:
    with open_consumer("x", BIG, mode="lossless") as c:
        books = Books(c)
        report(memory_of(os.getpid()))
        try:
            work(c)
        except Evicted as evicted:
            books.enter(evicted)
            report(evicted.lost)
        else:
            report(HANDED_OUT)
        books.read()
        report(books.expected)
        signal.pause()


def memory_of(pid: int) -> int:
    """Bytes of memory of its own that a process has touched so far: the target of a copy shows there, page by page."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


class BigRing:
    """A producer whose slots take long to copy, and a reader that is stopped while it uses some."""

    def __init__(self, p: DataBlockProducer) -> None:
        self.p = p

    def write(self, n: int) -> None:
        for _ in range(n):
            self.p.write(payload(self.p.next_seq, BIG_WORDS))

    def stopped_reader(self, work: Work) -> Child | None:
        """Return a reader that was stopped within `work`; None if it had finished its copy before the stop came."""
        child = Child(partial(be_evicted, work))
        before = child.receive()
        self.write(BIG_CAPACITY)
        if work is copy:
            ends = time.monotonic() + UNHURRIED
            while memory_of(child.pid) < before + MARGIN:  # no rest in between: the copy takes a few milliseconds
                assert time.monotonic() < ends
            os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: is_stopped(child.pid), UNHURRIED)
        if work is not copy or before + MARGIN <= memory_of(child.pid) <= before + COPIED - MARGIN:
            return child
        child.kill()
        return None

    def overwrite(self, n: int) -> None:
        evictions = self.p.stats()["evictions"]
        self.write(n)
        assert self.p.stats()["evictions"] == evictions + 1


@pytest.mark.fault(6, quick=9, full=60, share=0.5)
def test_06_evicted_consumer_wakes_up(fault: Fault) -> None:
    chance = random.Random(6)
    with open_producer("x", BIG, capacity=BIG_CAPACITY, timeout=UNHURRIED, evict_after=0.01) as p:
        ring = BigRing(p)
        for number in fault.each_round():
            work = (copy, hold_a_view, rest_between_reads)[number % 3]
            child = next(filter(None, (ring.stopped_reader(work) for _ in range(50))))
            fault.happened()
            with child:
                cursor = p.next_seq - BIG_CAPACITY
                ring.overwrite(chance.randint(1, 2 * BIG_CAPACITY))  # not always all of what it was reading
                os.kill(child.pid, signal.SIGCONT)
                assert child.receive() == p.next_seq - cursor
                ring.write(1)
                assert child.receive() == p.next_seq
