"""28: the wall clock is stepped under a broker, a producer and whoever waits. Nothing that waits looks at it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

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
        step_and_judge(fault, subject, runtime.find_live().pid)
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


def step_and_judge(fault: Fault, subject: subprocess.Popen[str], broker: int) -> None:
    stamps: list[int] = []
    lowest, highest = [], []
    now = 0
    with connect() as hub:
        for number in fault.each_round():
            wanted = STEPS[number % len(STEPS)]
            subject.stdin.write(f"{wanted}\n")
            subject.stdin.flush()
            seen = json.loads(subject.stdout.readline())
            assert abs(seen["stepped"] - (wanted - now)) < 1
            fault.happened()
            now = wanted
            for call, took in seen["took"].items():
                assert PATIENCE - 0.05 < took < PATIENCE + SLACK, call
            assert seen["epoch"] == 1
            assert seen["link"] == "connected"
            assert abs(seen["new"]) < SLACK  # a new producer takes the new time
            assert runtime.find_live().pid == broker
            stamps.append(seen["stamp"])
            low, high = seen["between"]
            lowest.append(low)
            highest.append(high)
        # Two heartbeats are late by now if they waited for the wall clock; then nothing makes up for them.
        late = time.monotonic() + 2.2 * HEARTBEAT_INTERVAL
        wait_until(lambda: time.monotonic() > late, 30)
        wait_until(lambda: hub.find(CHANNEL).liveness == "alive", 20, "a heartbeat")
    assert stamps == sorted(stamps)
    assert max(lowest) <= min(highest) + 1000, "the offset between timestamps and the monotonic clock has moved"
