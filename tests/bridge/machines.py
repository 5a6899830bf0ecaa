"""Machines in processes of their own, which can be stopped, killed and cut off; on the loopback or in a namespace."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from tests.faults.network_namespaces import Python

PROGRAM = """
import os
os.environ.update({dirs!r})
import time
from contextlib import ExitStack
import labhub
from labhub.hub import named_broker

stack = ExitStack()
stack.enter_context(named_broker(endpoint="tcp://127.0.0.1:0")).start()
hub = stack.enter_context(labhub.connect(timeout=30))
bridges, producers = {{}}, {{}}

def join(**options):
    bridges["one"] = labhub.bridge(hub=hub, **options)
    return True

def leave():
    bridges.pop("one").close()
    return True

def status():
    return bridges["one"].status.to_dict()

def produce(channel, n, rate=0.0, **options):
    "Write numbers, each equal to its seq; for how long writes have waited, and how many readers were evicted for it."
    p = producers.get(channel) or producers.setdefault(channel, hub.producer(channel, dtype="i8", shape=64, **options))
    for k in range(p.next_seq, p.next_seq + n):
        with p.slot() as s:
            s.array[...] = k
        if rate:
            time.sleep(1 / rate)
    return [p.stats()["blocked_ns"] / 1e9, p.stats()["evictions"]]

def finish(channel):
    producers.pop(channel).close()
    return True

def read(channel, until, timeout=60.0, mode="lossless"):
    "Read up to a seq; first and number of what came, and what was lost; every slot is checked."
    hub.wait_for(channel, timeout)
    c = producers.get("reader " + channel)
    if c is None or c.closed:
        c = producers["reader " + channel] = hub.consumer(channel, mode, start="oldest")
    first, n, before = c.cursor, 0, c.lost
    while c.cursor < until:
        b = c.next_batch(4096, 1, timeout, False)
        assert b is not None, "the stream has ended"
        assert (b.data == b.seq[:, None]).all(), "torn"
        n += len(b)
    return [first, n, c.lost - before, c.cursor]

def origin(channel):
    return dict(hub.find(channel).origin)

def end():
    for b in bridges.values(): b.close()
    for p in producers.values(): p.close()
    stack.close()
    return True
"""


def assert_unhindered(waited: tuple[float, int]) -> None:
    """Check what `produce` says: a producer that waits for a network waits for longer, or evicts who made it wait."""
    seconds, evictions = waited
    assert evictions == 0
    assert seconds < 0.5


class Somewhere(Protocol):
    """Where a process runs."""

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program there, which obeys lines."""


class Loopback:
    """Here."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program, which obeys lines; it is killed at the end."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = self._stack.enter_context(subprocess.Popen(command, text=True, **pipes))
        self._stack.callback(process.kill)
        return process


class Machine:
    """A broker, a hub and perhaps a bridge, with directories of their own; call it with an expression."""

    def __init__(self, place: Somewhere, base: Path, name: str) -> None:
        dirs = {}
        for variable in ("LABHUB_SHM_DIR", "LABHUB_RUNTIME_DIR", "LABHUB_DATA_DIR"):
            directory = base / "machines" / name / variable
            directory.mkdir(parents=True, mode=0o700)
            dirs[variable] = str(directory)
        self._python = Python(place, PROGRAM.format(dirs=dirs))  # type: ignore[arg-type]

    def __call__(self, expression: str) -> Any:
        return self._python(expression)

    def join(self, **options: object) -> None:
        """Make its bridge."""
        assert self(f"join(**{options!r})")

    @property
    def pid(self) -> int:
        return self._python.process.pid

    def state(self, kind: str) -> str:
        """What its bridge says of its first export or import."""
        channels = self("status()")[kind]
        return channels[0]["state"] if channels else ""

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)
