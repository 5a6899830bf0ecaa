"""28 and 42: the wall clock is stepped under a broker, a producer and whoever waits.

Nothing that waits looks at it; the times of slots follow it, in a new epoch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from labhub import runtime
from labhub.hub import connect, stop_broker
from labhub.protocol.messages import HEARTBEAT_INTERVAL
from tests.conftest import wait_until
from tests.faults.clock_subject import CHANNEL, PATIENCE
from tests.faults.rounds import Fault
from tests.faults.stepped import stepped_environment

ROOT = Path(__file__).parents[2]
DAY = 24 * 3600
STEPS = (DAY, -DAY, 3600, 0)
SLACK = 5.0
"""How late a wait may end on a machine that does other things as well (in seconds); a day is what is looked for."""


@pytest.mark.fault(28, quick=len(STEPS), full=3 * len(STEPS))
def test_28_wall_clock_stepped(fault: Fault, tmp_path: Path) -> None:
    with a_subject(tmp_path) as subject:
        step_and_judge(fault, subject, runtime.find_live().pid)


@pytest.mark.fault(42, quick=len(STEPS), full=3 * len(STEPS))
def test_42_times_of_slots_follow_the_clock_in_a_new_epoch(fault: Fault, tmp_path: Path) -> None:
    now, epoch = 0, 1
    with a_subject(tmp_path) as subject:
        for number in fault.each_round():
            seen = stepped(subject, wanted := STEPS[number % len(STEPS)])
            epoch += wanted != now
            now = wanted
            fault.happened()
            assert (seen["epoch"], seen["steps"], seen["falls"]) == (epoch, epoch - 1, 0)
            assert abs(seen["off"]) < SLACK * 1e9
            assert abs(seen["ahead"]) < 1e6
            with connect() as hub:
                assert hub.find(CHANNEL).liveness == "alive"  # the broker takes the new epoch for its own


@contextmanager
def a_subject(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A broker, and a process with a producer, under a clock that can be stepped."""
    stepped = stepped_environment(tmp_path)
    run = [sys.executable, "-m", "labhub.cli", "broker", "run", "--listen", "tcp://127.0.0.1:0"]
    broker = subprocess.Popen(run, env=stepped, stdout=subprocess.DEVNULL)
    subject = None
    try:
        wait_until(runtime.find_live, 60, "the broker")
        command = [sys.executable, "-m", "tests.faults.clock_subject"]
        subject = subprocess.Popen(
            command, cwd=ROOT, env=stepped, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert subject.stdout.readline() == "ready\n"
        yield subject
        subject.stdin.close()
        assert subject.wait(60) == 0
        assert stop_broker().pid == broker.pid
        assert broker.wait(60) == 0
    finally:
        for process in (subject, broker):
            if process is not None:
                process.kill()
                process.wait(60)
                for pipe in filter(None, (process.stdin, process.stdout)):
                    pipe.close()


def stepped(subject: subprocess.Popen[str], seconds: int) -> dict[str, Any]:
    """Set the clock to so many seconds beside the machine's; what the subject saw."""
    subject.stdin.write(f"{seconds}\n")
    subject.stdin.flush()
    return json.loads(subject.stdout.readline())


def step_and_judge(fault: Fault, subject: subprocess.Popen[str], broker: int) -> None:
    now = 0
    with connect() as hub:
        for number in fault.each_round():
            wanted = STEPS[number % len(STEPS)]
            seen = stepped(subject, wanted)
            assert abs(seen["stepped"] - (wanted - now)) < 1
            fault.happened()
            now = wanted
            for call, took in seen["took"].items():
                assert PATIENCE - 0.05 < took < PATIENCE + SLACK, call
            assert seen["link"] == "connected"
            assert abs(seen["new"]) < SLACK  # a new producer takes the new time
            assert runtime.find_live().pid == broker
        # Two heartbeats are late by now if they waited for the wall clock; then nothing makes up for them.
        late = time.monotonic() + 2.2 * HEARTBEAT_INTERVAL
        wait_until(lambda: time.monotonic() > late, 30)
        wait_until(lambda: hub.find(CHANNEL).liveness == "alive", 20, "a heartbeat")
