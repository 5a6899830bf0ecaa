"""Forked children that are killed at random moments, and slots whose contents can be checked."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WORDS = 128 * 1024  # 1 MiB: long enough that a kill lands in the copy


def payload(seq: int, words: int = WORDS) -> NDArray[np.uint64]:
    """Return the slot that belongs to a seq: every word depends on the seq and on its place."""
    return np.arange(words, dtype="u8") * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seq)


def is_whole(slot: NDArray[np.uint64], seq: int) -> bool:
    """Whether each word of a slot is that of its seq."""
    return bool((slot == payload(seq, slot.size)).all())


class Child:
    """A forked child that runs `work(report)` and never returns; `report(n)` sends a number to the parent."""

    def __init__(self, work: Callable[[Callable[[int], None]], None]) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._read)
                work(lambda n: _send(write, n))
            finally:
                os._exit(1)  # it is to be killed; and pytest must not run twice
        os.close(write)

    def receive(self, seconds: float = 10.0) -> int:
        """Wait for the next number."""
        ready, _, _ = select.select([self._read], [], [], seconds)
        assert ready, f"the child said nothing within {seconds} s"
        data = os.read(self._read, 8)
        assert len(data) == 8, "the child ended early"
        return int.from_bytes(data, "little")

    def kill(self) -> None:
        """End it with SIGKILL and reap it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._read)


def _send(descriptor: int, n: int) -> None:
    os.write(descriptor, n.to_bytes(8, "little"))
