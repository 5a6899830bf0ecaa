"""Forked children that are killed or stopped at any moment, and slots whose contents can be checked."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Self

import numpy as np
import psutil
from numpy.typing import NDArray

from tests.conftest import wait_until

Report = Callable[[int], None]


def payload(seq: int, words: int) -> NDArray[np.uint64]:
    """Return the slot that belongs to a seq: every word depends on the seq and on its place."""
    return _places(words) + np.uint64(seq)


def is_whole(slot: NDArray[np.uint64], seq: int) -> bool:
    """Whether each word of a slot is that of its seq."""
    return bool((slot - _places(slot.size) == np.uint64(seq)).all())


@cache
def _places(words: int) -> NDArray[np.uint64]:
    return np.arange(words, dtype="u8") * np.uint64(0x9E3779B97F4A7C15)


class Child:
    """A forked child that runs `work(report)` and never returns; `report(n)` sends a number to the parent.

    As a context manager it is killed at the end, unless it was before.
    """

    def __init__(self, work: Callable[[Report], None]) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._read)
                faulthandler.disable()  # a crash that is meant shows no traceback, and leaves no core
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                work(lambda n: _send(write, n))
            except BaseException:  # noqa: BLE001  # nobody above may see it: there is pytest once more
                traceback.print_exc()
            finally:
                os._exit(1)  # it is to be killed; and pytest must not run twice
        os.close(write)
        self._killed = False

    def receive(self, seconds: float = 30.0) -> int:
        """Wait for the next number."""
        ready, _, _ = select.select([self._read], [], [], seconds)
        assert ready, f"the child said nothing within {seconds} s"
        data = os.read(self._read, 8)
        assert len(data) == 8, "the child ended early"
        return int.from_bytes(data, "little")

    def kill(self, death: int = signal.SIGKILL) -> None:
        """End it with a signal, and reap it: that is what it died of, so it had lived until then."""
        os.kill(self.pid, death)
        _, status = os.waitpid(self.pid, 0)
        self._killed = True
        os.close(self._read)
        assert os.waitstatus_to_exitcode(status) == -death

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._killed:
            self.kill()


def _send(descriptor: int, n: int) -> None:
    os.write(descriptor, n.to_bytes(8, "little"))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Hold a process still (SIGSTOP) meanwhile."""
    process = psutil.Process(pid)
    process.suspend()
    try:
        wait_until(lambda: is_stopped(pid), 30, "the stop")
        yield
    finally:
        process.resume()


def is_stopped(pid: int) -> bool:
    """Whether a process does not run because of a signal."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED
