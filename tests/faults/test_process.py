"""The edges of a process: its end, a close from another thread, and rings so large that making one takes a while."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import ClosedError, StreamError
from labhub.hub import connect, start_broker, stop_broker
from tests.conftest import wait_until
from tests.faults import exiting
from tests.faults.rounds import Fault

NUMBER = Schema.infer(dtype="i8")
PATIENCE = 30.0  # s


# ----------------------------------------------------------------------------------------------- 39: the program ends


def ends_in_order(what: str, level: str, fault: Fault) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.exiting", what, level],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        try:
            path = Path(segment_directory(), "x")
            wait_until(path.exists, PATIENCE, "a channel")
            with open_consumer("x") as observer:
                if what.startswith("write"):
                    wait_until(lambda: observer.head >= 3 or what == "write handle", PATIENCE, "a full ring")
                out, complaints = program.communicate("end\n", timeout=PATIENCE)
                assert (program.returncode, out, complaints) == (0, "ends\n", ""), (what, level)
                fault.happened()
                assert observer.ended
                for _ in observer.batches(timeout=PATIENCE):
                    pass  # readers see the end
            assert not path.exists()
        finally:
            program.kill()


@pytest.mark.fault(39, share=0.5)
@pytest.mark.parametrize("what", exiting.WRITES + exiting.READS)
def test_39_program_ends_while_a_daemon_thread_is_in_a_datablock(what: str, fault: Fault) -> None:
    for _ in fault.each_round():
        ends_in_order(what, "datablock", fault)


@pytest.mark.fault(39, share=0.5)
def test_39_program_ends_while_a_daemon_thread_is_in_a_hub(fault: Fault) -> None:
    start_broker()
    try:
        for _ in fault.each_round():
            for what in exiting.HUB:
                ends_in_order(what, "hub", fault)
    finally:
        stop_broker()


# ------------------------------------------------------------------------------------------ 40: close while one waits


class Waiting:
    """A thread, not a daemon, that waits in a call; what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.outcome: object = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._call()
        except (StreamError, ClosedError) as error:
            self.outcome = type(error)

    def joined(self) -> object:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.outcome


def read_all(iterator: Any) -> str:
    for _ in iterator:
        pass
    return "end"


def open_slot(end: Any) -> None:
    with end.slot():
        pass


READS: dict[str, tuple[Callable[[Any], object], object]] = {
    "batches": (lambda c: read_all(c.batches()), "end"),
    "parts": (lambda c: read_all(c.batches(min_slots=100)), "end"),
    "datasets": (lambda c: read_all(c.datasets()), "end"),
    "slot": (open_slot, ClosedError),
    "latest": (lambda c: c.latest(), ClosedError),
}
BELOW = {
    "views": (lambda c: read_all(c.views()), "end"),
    "handle": (lambda c: c.acquire_consume_slot(-1), ClosedError),
}
WRITES: dict[str, Callable[[Any], object]] = {
    "write": lambda p: p.write(0),
    "write many": lambda p: p.write_many(np.zeros(9, "i8")),
    "slot": open_slot,
}


def is_inside(end: Any) -> bool:
    """Whether another thread is inside a call, which nobody else may be then."""
    native = getattr(end, "_block", end)._native
    try:
        if isinstance(end, DataBlockConsumer) or hasattr(native, "cursor"):
            native.first_within(0, 0)
        else:
            native.span_of(0, 0)
    except Exception as error:  # noqa: BLE001
        return type(error).__name__ == "ConcurrentUseError"
    return False


def closed_while_waiting(end: Any, call: Callable[[Any], object], expected: object, fault: Fault) -> None:
    waiting = Waiting(lambda: call(end))
    wait_until(lambda: is_inside(end), PATIENCE, "a thread that waits")
    closers = [threading.Thread(target=end.close) for _ in range(2)]
    with fault.recovery():
        for closer in closers:
            closer.start()
        assert waiting.joined() == expected
    for closer in closers:
        closer.join(PATIENCE)
        assert not closer.is_alive()
    assert end.closed
    end.close()
    fault.happened()


@pytest.fixture(params=["datablock", "hub"])
def ends(request: pytest.FixtureRequest) -> Iterator[Callable[..., tuple[Any, Any]]]:
    """Open a producer and a reader of one channel, which nobody has open yet."""
    count = iter(range(10**6))
    options: dict[str, Any] = {"capacity": 4, "timeout": None, "evict_after": None}

    if request.param == "hub":
        start_broker()
        with connect() as hub:

            def through_hub(mode: Any) -> tuple[Any, Any]:
                name = f"x{next(count)}"
                return hub.producer(name, dtype="i8", **options), hub.consumer(name, mode=mode)

            yield through_hub
        stop_broker()
        return

    def below(mode: Any) -> tuple[DataBlockProducer, DataBlockConsumer]:
        name = f"x{next(count)}"
        return open_producer(name, NUMBER, **options), open_consumer(name, NUMBER, mode=mode)

    yield below


@pytest.mark.fault(40, full=20, p99=0.5)
def test_40_reader_closed_while_another_thread_waits_in_it(ends: Callable[..., tuple[Any, Any]], fault: Fault) -> None:
    for _ in fault.each_round():
        for mode in ("stream", "lossless", "latest"):
            producer, reader = ends(mode)
            calls = READS | (BELOW if isinstance(reader, DataBlockConsumer) else {})
            reader.close()
            for what, (call, expected) in calls.items():
                if mode == "latest" and what == "parts":  # refused
                    continue
                producer.close()
                producer, reader = ends(mode)
                closed_while_waiting(reader, call, expected, fault)
                for k in range(8):  # a lossless reader holds nobody up any more
                    producer.write(k)
            producer.close()


@pytest.mark.fault(40, full=20, p99=0.5)
def test_40_producer_closed_while_another_thread_waits_in_it(
    ends: Callable[..., tuple[Any, Any]], fault: Fault
) -> None:
    for _ in fault.each_round():
        for call in WRITES.values():
            producer, reader = ends("lossless")
            for k in range(4):
                producer.write(k)
            closed_while_waiting(producer, call, ClosedError, fault)
            batch = next(reader.batches())
            assert batch.data.tolist() == [0, 1, 2, 3]
            assert read_all(reader.batches()) == "end"
            reader.close()


@pytest.mark.fault(40)
def test_40_hub_closed_while_others_wait_in_its_ends(fault: Fault) -> None:
    start_broker()
    try:
        hub = connect()
        producer = hub.producer("x", dtype="i8", capacity=4, timeout=None, evict_after=None)
        full = hub.consumer("x", mode="lossless")
        producer.write_many(np.arange(4))
        reader = hub.consumer("x")
        for _ in fault.each_round():
            waiting = [Waiting(lambda: producer.write(4)), Waiting(lambda: read_all(reader.batches()))]
            wait_until(lambda: is_inside(producer) and is_inside(reader), PATIENCE, "two threads that wait")
            hub.close()
            assert [w.joined() for w in waiting] == [ClosedError, "end"]
            assert full.closed
            fault.happened()
            break
    finally:
        stop_broker()


def interrupt_once_inside(end: Any, thread: int) -> None:
    wait_until(lambda: is_inside(end), PATIENCE, "a main thread that waits")
    signal.pthread_kill(thread, signal.SIGUSR1)


@pytest.mark.fault(40)
def test_40_signal_handler_closes_the_end_that_it_interrupts(fault: Fault) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        for _ in fault.each_round():
            with open_producer("x", NUMBER, capacity=4, timeout=None, evict_after=None) as p:
                c = open_consumer("x", NUMBER, mode="lossless")
                for end, call in ((c, lambda c=c: c.latest()), (p, lambda p=p: p.write(0))):
                    if end is p:
                        c = open_consumer("x", NUMBER, mode="lossless")
                        p.write_many(np.arange(4))
                    signal.signal(signal.SIGUSR1, lambda *_, end=end: end.close())
                    helper = threading.Thread(target=interrupt_once_inside, args=(end, threading.get_ident()))
                    helper.start()
                    with pytest.raises(ClosedError):
                        call()
                    helper.join(PATIENCE)
                    fault.happened()
                assert c.ended
                c.close()
            assert os.listdir(segment_directory()) == []
    finally:
        signal.signal(signal.SIGUSR1, before)


# ------------------------------------------------------------------------------------------- 43, 44, 46: large rings

LARGE = 256 * 1024 * 1024  # bytes; some twenty parts
FRAMES = Schema.infer(dtype="u1", shape=(1 << 20,))


class Looks:
    """A thread that asks for the GIL all the time, and counts how often it gets it while something is done."""

    def __init__(self) -> None:
        self.count = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.0001):
            self.count += 1

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Expect that it got the GIL again and again while this was done."""
        before = self.count
        yield
        assert self.count > before + 2


@pytest.mark.fault(43)
def test_43_large_ring_is_attached_and_dropped_beside_other_threads(fault: Fault) -> None:
    capacity = LARGE // FRAMES.slot_nbytes
    with Looks() as looks:
        for _ in fault.each_round():
            with looks.expected():
                producer = open_producer("x", FRAMES, capacity=capacity)
            with producer:
                with looks.expected():
                    reader = open_consumer("x", FRAMES)
                fault.happened(2)
                reader.close()


@pytest.mark.fault(44, p99=0.1)
def test_44_ctrl_c_during_the_creation_of_a_large_ring(fault: Fault) -> None:
    directory = segment_directory()
    for _ in fault.each_round():
        struck: list[float] = []

        def strike() -> None:
            wait_until(lambda: any(e.endswith(".tmp") for e in os.listdir(directory)), PATIENCE, "a half-made ring")
            struck.append(time.monotonic())  # noqa: B023
            signal.raise_signal(signal.SIGINT)

        with open_producer("y", NUMBER):  # makes the directory
            helper = threading.Thread(target=strike)
            helper.start()
            with pytest.raises(KeyboardInterrupt):
                open_producer("x", FRAMES, capacity=4 * LARGE // FRAMES.slot_nbytes)
            fault.recovered(time.monotonic() - struck[0])
            helper.join(60)
            assert os.listdir(directory) == ["y"]
            fault.happened()


@pytest.mark.fault(44)
def test_44_profiler_runs_during_the_creation_of_a_large_ring(fault: Fault) -> None:
    ticks: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in fault.each_round():
            with open_producer("x", FRAMES, capacity=LARGE // FRAMES.slot_nbytes) as p:
                assert p.capacity == LARGE // FRAMES.slot_nbytes
            fault.happened(len(ticks))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def held(path: str) -> tuple[int, int]:
    """How many descriptors and maps this process has of a file, or of its directory."""
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sum(path in link or link == os.path.dirname(path) for link in links), sum(path in m for m in maps)


@pytest.mark.fault(46)
def test_46_closed_ends_that_are_kept_give_descriptor_and_map_back(fault: Fault) -> None:
    path = os.path.join(segment_directory(), "x")
    for _ in fault.each_round():
        p = open_producer("x", NUMBER, capacity=8)
        c = open_consumer("x", NUMBER)
        p.write(7)
        with p.slot() as slot:
            slot.array[...] = 8
        views = [view.copy() for view in [next(c.views(timeout=PATIENCE))]]
        assert held(path) != (0, 0)
        del slot
        p.close()
        c.close()
        gc.collect()
        assert held(path) == (0, 0)
        assert (p.next_seq, p.capacity, p.epoch, c.head, c.ended, views[0].tolist()) == (2, 8, 1, 2, True, 7)
        fault.happened()


@pytest.mark.fault(46)
def test_46_views_that_are_kept_keep_the_memory(fault: Fault) -> None:
    path = os.path.join(segment_directory(), "x")
    for _ in fault.each_round():
        p = open_producer("x", NUMBER, capacity=8)
        with p.slot() as slot:
            slot.array[...] = 8
        kept = slot.array
        del slot
        p.close()
        assert held(path)[0] == 0
        assert kept.tolist() == 8
        kept[...] = 9
        assert kept.tolist() == 9
        del kept
        gc.collect()
        assert held(path) == (0, 0)
        fault.happened()
