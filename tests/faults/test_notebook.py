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

from labhub import runtime
from labhub.datablock.location import segment_directory
from labhub.hub import connect, start_broker, stop_broker
from labhub.notebook.background import remove_leftovers
from tests.faults.blocking_calls import obey
from tests.faults.broker_processes import ANY_PORT, PATIENCE, Actor, broker
from tests.faults.rounds import Fault
from tests.kernels import PUMP, Notebook, running_notebook

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
        scene("start and stop", 2, 3),
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


STUBBORN = """%%hub_producer stubborn
import time
print("on", flush=True)
while True:
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        pass
"""
MAGICS = (
    "hub_broker status",
    "hub_discover",
    "hub_info x",
    "hub_tail x",
    "hub_plot x",
    "hub_doctor",
    "hub_discover nothing.* --wait 60",
    "hub_producers stop",
)
ATTEMPT = """
import time
print("in", flush=True)
try:
    get_ipython().run_line_magic({!r}, {!r})
    print("it was not interrupted")
except KeyboardInterrupt:
    print(time.monotonic())
"""


@pytest.mark.fault(32, quick=len(MAGICS), full=5 * len(MAGICS), p99=0.1)
def test_32_interrupt_in_every_magic_that_blocks(fault: Fault, wait_until: Wait) -> None:
    with broker() as (service, _), connect() as hub, running_notebook() as notebook, hub.producer("x", dtype="f8") as p:
        p.write(1.0)
        notebook.run("%hub_connect")
        for _, magic in zip(fault.each_round(), itertools.cycle(MAGICS), strict=False):
            silent = magic not in MAGICS[-2:]
            if magic == "hub_producers stop":
                notebook.run(STUBBORN)
                wait_until(lambda: "on" in notebook.run("%hub_producers logs stubborn"), PATIENCE, "the producer")
            if silent:
                os.kill(service.pid, signal.SIGSTOP)
            took = interrupt(notebook, magic)
            os.kill(service.pid, signal.SIGCONT)
            fault.happened()
            fault.recovered(took)
            print(f"%{magic}: {took * 1e3:.1f} ms")
            assert "x" in notebook.run("hub.channels()", PATIENCE)
            if magic == "hub_producers stop":
                assert "stopped" in notebook.run("%hub_producers stop stubborn")


def interrupt(notebook: Notebook, magic: str) -> float:
    """Press the Interrupt button while a magic waits; how long it took to end (in seconds)."""
    name, _, line = magic.partition(" ")
    told: list[str] = []

    def hear(message: dict) -> None:
        if message["header"]["msg_type"] == "stream" and (words := message["content"]["text"].split()):
            if words[0] == "in":
                time.sleep(random.uniform(0.05, 0.05 + WHEN))  # a random moment is what is wanted
                told.append(str(time.monotonic()))
                notebook.manager.interrupt_kernel()
                words = words[1:]
            told.extend(words)

    notebook.client.execute_interactive(ATTEMPT.format(name, line), timeout=PATIENCE, output_hook=hear)
    assert len(told) == 2, f"%{magic}: {told}"
    return float(told[1]) - float(told[0])


def segments() -> list[str]:
    return os.listdir(segment_directory())


def restart(notebook: Notebook) -> None:
    notebook.manager.restart_kernel()
    notebook.client.wait_for_ready(timeout=PATIENCE)


def kill(notebook: Notebook) -> None:
    os.kill(notebook.process.pid, signal.SIGKILL)
    notebook.process.wait(PATIENCE)


ENDS = ((restart, False), (kill, True), (kill, False), (restart, True))
"""How a kernel ends, and whether the broker is told to stop at the same time."""


@pytest.mark.fault(37, quick=2, full=4, p99=10.0)
def test_37_kernel_restarted_or_killed_while_a_background_producer_runs(fault: Fault, wait_until: Wait) -> None:
    for _, (end, with_broker) in zip(fault.each_round(), itertools.cycle(ENDS), strict=False):
        start_broker(endpoint=ANY_PORT)
        with connect(timeout=PATIENCE) as hub, running_notebook() as notebook:
            kernel = notebook.process
            notebook.run(PUMP)
            pid = hub.wait_for("pump.p", PATIENCE).producer_pid
            assert pid != kernel.pid
            assert segments() == ["pump.p"]
            with fault.recovery():
                if with_broker:
                    notebook.client.execute("%hub_broker stop")
                end(notebook)
                wait_until(lambda pid=pid: not psutil.pid_exists(pid), PATIENCE, "the end of the producer")
                wait_until(lambda: segments() == [], PATIENCE, "the end of its segment")
            fault.happened(not kernel.is_running())
            if with_broker and runtime.find_live() is not None:
                stop_broker()  # the kernel did not come to that
            start_broker(endpoint=ANY_PORT)
            wait_until(lambda: hub.channels() == [], PATIENCE, "the end of its channel")
            if end is restart:
                assert notebook.run("%load_ext labhub\n%hub_producers") == "no background producers"
        stop_broker()
        assert list(runtime.runtime_directory().glob("kernels-*")) == []


@pytest.mark.fault(37, quick=1, full=1, share=0.1, p99=20.0)
def test_37_background_producer_killed_together_with_its_kernel(fault: Fault, wait_until: Wait) -> None:
    """Nobody is left to close anything: the broker buries the segment, once nobody takes it over."""
    for _ in fault.each_round():
        with broker(), connect() as hub, running_notebook() as notebook:
            notebook.run(PUMP)
            pid = hub.wait_for("pump.p", PATIENCE).producer_pid
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            kill(notebook)
            fault.happened(segments() == ["pump.p"])
            with fault.recovery():
                wait_until(lambda pid=pid: not psutil.pid_exists(pid), PATIENCE, "the end of the producer")
                wait_until(lambda: hub.channels() == segments() == [], PATIENCE, "the burial")
        assert len(list(runtime.runtime_directory().glob("kernels-*"))) == 1  # what the killed ones could not remove
        remove_leftovers()
