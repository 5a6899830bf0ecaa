"""A reader that polls: it sees all that a sleeping one is woken for, sets no bit, and nobody else polls."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import ProducerGone, TimeoutExpired

NUMBER = Schema.infer(dtype="i8")
DATA_WORD = 192  # of the segment; docs/spec/datablock.md
PRODUCER = """
import sys
from labhub import Schema
from labhub.datablock.producer import open_producer
p = open_producer("x", Schema.infer(dtype="i8"), capacity=8)
print("ready", flush=True)
sys.stdin.readline()
"""


class Waiter(threading.Thread):
    """A thread inside one call of a consumer."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: Future[object] = Future()

    def run(self) -> None:
        try:
            self.result.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test sees it
            self.result.set_exception(error)

    def cpu_seconds(self) -> float:
        assert self.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self.ident))


@contextmanager
def polling(call: Callable[[], object], wait_until: Callable[..., None]) -> Iterator[Waiter]:
    """Run a call in a thread, up to the point where it has provably polled for a while."""
    waiter = Waiter(call)
    waiter.start()
    began = waiter.cpu_seconds()
    wait_until(lambda: waiter.cpu_seconds() > began + 0.1, 30.0, "polling")
    assert not waiter.result.done()
    yield waiter
    waiter.join(30)


def has_waiters() -> bool:
    """Whether a reader has asked to be woken."""
    word = Path(segment_directory(), "x").read_bytes()[DATA_WORD : DATA_WORD + 4]
    return bool(int.from_bytes(word, sys.byteorder) & 1)


def in_place(c: DataBlockConsumer, timeout: float) -> object:
    with c.slot(timeout) as slot:
        return slot.array.item()


CALLS: dict[str, Callable[[DataBlockConsumer, float], object]] = {
    "slot": in_place,
    "views": lambda c, timeout: next(c.views(timeout)).item(),
    "batches": lambda c, timeout: next(c.batches(timeout=timeout)).data.item(),
    "latest": lambda c, timeout: c.latest(timeout).data.item(),
    "acquire_consume_slot": lambda c, timeout: int.from_bytes(
        c.acquire_consume_slot(timeout * 1000).read(), sys.byteorder
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", ["stream", "latest", "lossless"])
def test_it_sees_a_slot_without_being_woken(call, mode, wait_until):
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER, mode=mode, busy_poll=True) as c:
        with polling(lambda: CALLS[call](c, 30), wait_until) as waiter:
            assert not has_waiters()
            p.write(7)
        assert waiter.result.result(30) == 7


def test_the_default_sleeps_and_asks_to_be_woken(wait_until):
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER) as c:
        waiter = Waiter(lambda: next(c.batches(timeout=30)).data.item())
        waiter.start()
        wait_until(has_waiters)
        began, used = time.monotonic(), waiter.cpu_seconds()
        wait_until(lambda: time.monotonic() > began + 0.5)
        assert waiter.cpu_seconds() < used + 0.1
        p.write(7)
        assert waiter.result.result(30) == 7


def test_it_waits_for_as_many_slots_as_were_asked_for(wait_until):
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER, busy_poll=True) as c:
        with polling(lambda: next(c.batches(min_slots=3, timeout=30)).data.tolist(), wait_until) as waiter:
            p.write_many([1, 2])
            assert not waiter.result.done()
            p.write(3)
        assert waiter.result.result(30) == [1, 2, 3]


def test_every_slot_arrives_once_and_in_order():
    amount = 20_000
    with (
        open_producer("x", NUMBER, capacity=64) as p,
        open_consumer("x", NUMBER, mode="lossless", busy_poll=True) as c,
        ThreadPoolExecutor(1) as pool,
    ):
        got = pool.submit(lambda: [view.item() for view in islice(c.views(timeout=30), amount)])
        for first in range(0, amount, 100):
            p.write_many(np.arange(first, first + 100))
        assert got.result(60) == list(range(amount))
        assert c.lost == 0


@pytest.mark.parametrize("call", ["slot", "views", "batches"])
@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_it_keeps_to_its_timeout(call, timeout):
    with open_producer("x", NUMBER, capacity=8), open_consumer("x", NUMBER, busy_poll=True) as c:
        began = time.monotonic()
        with pytest.raises(TimeoutExpired):
            CALLS[call](c, timeout)
        assert timeout <= time.monotonic() - began < timeout + 5


def test_the_end_of_the_stream_ends_it(wait_until):
    p = open_producer("x", NUMBER, capacity=8)
    with open_consumer("x", NUMBER, busy_poll=True) as c:
        with polling(lambda: list(c.views(timeout=30)), wait_until) as waiter:
            p.close()
        assert waiter.result.result(30) == []


def test_it_notices_that_the_producer_was_killed(wait_until):
    child = subprocess.Popen([sys.executable, "-c", PRODUCER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with open_consumer("x", NUMBER, busy_poll=True) as c:
            with polling(lambda: next(c.batches(timeout=30, until_gone=True)), wait_until) as waiter:
                child.send_signal(signal.SIGKILL)
                assert child.wait(30) == -signal.SIGKILL
            with pytest.raises(ProducerGone):
                waiter.result.result(30)
            with polling(lambda: next(c.views(timeout=30)).item(), wait_until) as waiter:
                with open_producer("x", NUMBER, capacity=8) as p:  # the takeover
                    p.write(7)
                    assert waiter.result.result(30) == 7
