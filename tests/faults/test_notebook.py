"""What befalls a notebook: Interrupt in every call that blocks, and a kernel that is restarted or killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.faults.blocking_calls import obey
from tests.faults.broker_processes import PATIENCE, Actor, broker
from tests.faults.rounds import Fault

Wait = Callable[..., None]

WHEN = 0.06
"""A call is interrupted within so long (in seconds) after it fell asleep; the ring's own waits are slices of 50 ms."""


def scene(name: str, calls: int, full: int) -> object:
    return pytest.param(name, calls, marks=pytest.mark.fault(32, quick=calls, full=full * calls, p99=0.1), id=name)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        scene("full ring", 4, 30),
        scene("quiet channel", 12, 15),
        scene("silent broker", 18, 5),
        scene("start and stop", 2, 5),
    ],
)
def test_32_interrupt_in_every_blocking_call(fault: Fault, wait_until: Wait, name: str, calls: int) -> None:
    with broker(), Actor(obey, name) as actor:
        every = actor.hear()
        assert len(every) == calls
        process = psutil.Process(actor.pid)
        for _, call in zip(fault.each_round(), itertools.cycle(every), strict=False):
            actor.say(call)
            assert actor.hear() == "in"
            wait_until(lambda: process.status() == psutil.STATUS_SLEEPING, PATIENCE, "a blocked call")
            time.sleep(random.uniform(0.0, WHEN))  # a random moment is what is wanted
            sent = time.monotonic()
            os.kill(actor.pid, signal.SIGINT)
            outcome = actor.hear()
            assert isinstance(outcome, float), f"{call}: {outcome}"
            fault.happened()
            fault.recovered(outcome - sent)
            print(f"{call}: {(outcome - sent) * 1e3:.1f} ms")
        actor.say(None)
        assert actor.hear() == "closed"
