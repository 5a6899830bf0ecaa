"""SIGINT in every blocking call: it ends at once as KeyboardInterrupt, and the object can be used again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

CHILD = """
import signal, sys, time
import numpy as np
from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer

number = Schema.infer(dtype="i8")
p = open_producer("x", number, capacity=4, timeout=None, evict_after=None)
lossless = open_consumer("x", number, mode="lossless")
c = open_consumer("x", number)
polling = open_consumer("x", number, busy_poll=True)
p.write_many([0, 1, 2, 3])
next(c.batches())
next(polling.batches())
calls = {
    "batches": lambda: next(c.batches()),
    "batches of many": lambda: next(c.batches(min_slots=4)),
    "slot": lambda: c.slot().__enter__(),
    "latest mode": lambda: next(open_consumer("x", number, mode="latest").batches()),
    "acquire_consume_slot": lambda: c.acquire_consume_slot(-1),
    "polled batches": lambda: next(polling.batches()),
    "polled slot": lambda: polling.slot().__enter__(),
    "polled views": lambda: next(polling.views()),
    "write": lambda: p.write(4),
    "write_many": lambda: p.write_many([4, 5, 6]),
    "write slot": lambda: p.slot().__enter__(),
    "acquire_write_slot": lambda: p.acquire_write_slot(-1),
}
print("ready", flush=True)
try:
    calls[sys.argv[1]]()
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
else:
    sys.exit("it was not interrupted")
# Slot and lock are free again, and nothing was written.
assert p.next_seq == 4, p.next_seq
assert next(lossless.batches()).data.tolist() == [0, 1, 2, 3]
p.write(4)
assert next(c.batches(timeout=1)).data.tolist() == [4]
with polling.slot(timeout=1) as slot:
    assert slot.array == 4
polling.close()
c.close()
lossless.close()
p.close()
"""

CALLS = [
    "batches",
    "batches of many",
    "slot",
    "latest mode",
    "acquire_consume_slot",
    "polled batches",
    "polled slot",
    "polled views",
    "write",
    "write_many",
    "write slot",
    "acquire_write_slot",
]


def is_asleep(pid: int) -> bool:
    """Whether the main thread of a process sleeps in a futex."""
    return "futex" in Path(f"/proc/{pid}/task/{pid}/wchan").read_text()


def is_busy(pid: int, since: float) -> bool:
    """Whether a process has used a fifth of a second of a CPU more than it had used when it said that it is ready."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system > since + 0.2


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, call], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        times = psutil.Process(child.pid).cpu_times()
        blocks = partial(is_busy, since=times.user + times.system) if call.startswith("polled") else is_asleep
        deadline = time.monotonic() + 30
        while not blocks(child.pid):
            assert time.monotonic() < deadline, "the call did not block"
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert child.returncode == 0, err
        taken_ms = (float(out) - sent) * 1e3
    finally:
        child.kill()
        child.wait()
    with capsys.disabled():
        print(f" [{call}: {taken_ms:.1f} ms]", end="")
    assert taken_ms < 1000
