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
from jupyter_client.manager import start_new_kernel

from labhub import runtime
from labhub.datablock.location import segment_directory
from labhub.hub import connect
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


CELL = """
import itertools, labhub, time
with labhub.connect().producer("pump", dtype="i8") as p:
    for k in itertools.count():
        p.write(k)
        time.sleep(0.002)
"""


@pytest.mark.fault(37, quick=2, full=10, p99=5.0)
def test_37_kernel_restarted_or_killed_while_a_background_producer_runs(fault: Fault, wait_until: Wait) -> None:
    with broker(), connect() as hub:
        manager, client = start_new_kernel(kernel_name="python3")
        try:
            for k in fault.each_round():
                program = f"%load_ext labhub\nget_ipython().run_cell_magic('hub_producer', 'pump', {CELL!r})"
                assert client.execute(program, reply=True, timeout=60)["content"]["status"] == "ok"
                producer = psutil.Process(hub.wait_for("pump", 30).producer_pid)
                fault.happened(producer.is_running())
                with fault.recovery():
                    if k % 2:
                        os.kill(manager.provisioner.pid, signal.SIGKILL)
                    else:
                        manager.restart_kernel(now=True)
                    wait_until(lambda p=producer: not p.is_running(), PATIENCE, "the end of the producer")
                    wait_until(lambda: not hub.channels(), PATIENCE, "the end of its channel")
                assert os.listdir(segment_directory()) == []
                if k % 2:
                    manager.restart_kernel(now=True)
                client.wait_for_ready(timeout=60)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    for left in runtime.runtime_directory().glob("kernels-*/*"):
        left.unlink()  # the log of a producer whose notebook was killed; the next one's, and the doctor, remove it
