"""One of two processes that do the same thing at the same moment: ``python -m tests.faults.racer 0|1 BARRIER``.

It reads lines ``KIND NUMBER``, meets the other one for each of them, and answers with what came of it, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labhub import Schema, _native
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import ChannelBusy

NUMBER = Schema.infer(dtype="i8")
STOPS = 3  # meetings in one race: before it, behind it, and when both have looked at what came of it
PATIENCE = 60.0
TICK_NS = 1_000_000


class Racer:
    """This process, and the words of both on a page that they share."""

    def __init__(self, me: int, barrier: Path) -> None:
        self._me = me
        self._met = np.memmap(barrier, np.uint64, "r+", shape=(2,))

    def race(self, kind: str, number: int) -> dict[str, Any]:
        """Run one race, and say what came of it."""
        mine = self._begin(kind)
        self._meet(STOPS * number + 1)
        _start_together()
        began = time.monotonic_ns()
        mine, answer = self._act(kind, mine)
        answer |= {"began": began, "ended": time.monotonic_ns()}
        self._meet(STOPS * number + 2)
        if mine is not None:
            answer["whole"] = _owns(mine)
        self._meet(STOPS * number + 3)
        if mine is not None:
            mine.close()
        return answer

    def _begin(self, kind: str) -> DataBlockProducer | None:
        """Leave a dead segment for both; or open one for the other to wait for."""
        if self._me == 0 and kind in ("takeover", "burial") and os.fork() == 0:
            _dead = open_producer("x", NUMBER, capacity=4)
            os._exit(0)  # as if it were killed: nothing is closed
        if self._me == 0 and kind in ("takeover", "burial"):
            os.wait()
        return open_producer("x", NUMBER, capacity=4) if self._me == 0 and kind == "closing" else None

    def _act(self, kind: str, mine: DataBlockProducer | None) -> tuple[DataBlockProducer | None, dict[str, Any]]:
        if mine is not None:
            mine.close()
            return None, {}
        if self._me == 0 and kind == "burial":
            return None, {"buried": _native.unlink_dead(segment_directory(), "x")}
        if kind == "closing":
            return _insist(), {}
        try:
            return open_producer("x", NUMBER, capacity=4), {}
        except ChannelBusy as error:
            return None, {"busy": error.pid}

    def _meet(self, stop: int) -> None:
        self._met[self._me] = stop
        _wait(lambda: self._met[1 - self._me] >= stop)


def _owns(mine: DataBlockProducer) -> bool:
    """Whether the path leads to this producer's segment."""
    found = _native.probe(segment_directory(), "x")
    return found["instance_id"] == mine.instance_id and bool(found["alive"])


def _insist() -> DataBlockProducer:
    """Open the channel as soon as its owner lets go of it."""
    opened: list[DataBlockProducer] = []

    def done() -> bool:
        try:
            opened.append(open_producer("x", NUMBER, capacity=4))
        except ChannelBusy:
            return False
        return True

    _wait(done)
    return opened[0]


def _start_together() -> None:
    """Spin to the next tick of the clock that both have: who was on the processor when they met is no sooner."""
    tick = (time.monotonic_ns() + TICK_NS // 4) // TICK_NS + 1
    while time.monotonic_ns() < tick * TICK_NS:
        pass


def _wait(condition: Callable[[], bool]) -> None:
    """Spin: a sleep would let one of the two come late to the race."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the other one did not come"
        os.sched_yield()


if __name__ == "__main__":
    racer = Racer(int(sys.argv[1]), Path(sys.argv[2]))
    for line in sys.stdin:
        kind, number = line.split()
        print(json.dumps(racer.race(kind, int(number))), flush=True)
