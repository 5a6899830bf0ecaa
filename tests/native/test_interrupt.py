"""SIGINT in every call that polls: it ends at once as KeyboardInterrupt, and the object can be used again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

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
    "polled batches": lambda: next(polling.batches()),
    "polled slot": lambda: polling.slot().__enter__(),
    "polled views": lambda: next(polling.views()),
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

CALLS = ["polled batches", "polled slot", "polled views"]


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
        since = times.user + times.system
        deadline = time.monotonic() + 30
        while not is_busy(child.pid, since):
            assert time.monotonic() < deadline, "the call did not block"
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert child.returncode == 0, err
        taken_ms = (float(out) - sent) * 1e3
    finally:
        child.kill()
        child.wait(60)
    with capsys.disabled():
        print(f" [{call}: {taken_ms:.1f} ms]", end="")
    assert taken_ms < 1000
