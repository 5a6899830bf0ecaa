"""Segments of processes that live or were killed, and their bytes to spoil."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import LabHubError

FRAME = Schema.infer(dtype="u8", shape=(64,))
CAPACITY = 16
PATIENCE = 120.0
"""For how long another process may be silent when it is asked (in seconds)."""
HEADER_NBYTES = 512 + 64 * 128

# layout.hpp: the two lines that nobody changes once magic is stored, each field with its first byte.
FIELDS = {
    "magic": 0,
    "abi": 8,
    "header_nbytes": 12,
    "capacity": 16,
    "slot_nbytes": 24,
    "stride": 32,
    "slot_headers_offset": 40,
    "payload_offset": 48,
    "total_nbytes": 56,
    "schema_hash": 64,
    "instance_id": 96,
    "shared_secret": 112,
    "policy": 120,
    "sync_policy": 121,
    "checksum_policy": 122,
    "reserved": 123,
}

PRELUDE = """
import os, sys
import numpy as np
from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import *
FRAME = Schema.infer(dtype="u8", shape=(64,))
def slots(first, n): return [[seq] * 64 for seq in range(first, first + n)]
"""
PRODUCER = """
p = open_producer("x", FRAME, capacity={capacity}, checksum={checksum!r}, shared_secret={secret})
p.write_many(slots(0, {written}))
print("ready", flush=True)
for line in sys.stdin:  # how many more are to be written
    p.write_many(slots(p.next_seq, int(line)))
    print(p.next_seq, flush=True)
p.close()
"""

BROKER = """
from labhub.hub import named_broker
with named_broker(endpoint="tcp://127.0.0.1:0") as service:
    service.start()
    print("ready", flush=True)
    sys.stdin.read()
"""
"""The program of a broker."""


class Elsewhere:
    """A Python process that runs a program; its lines are a conversation."""

    def __init__(self, program: str, *before: str) -> None:
        command = [*before, sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid

    def read(self) -> str:
        """Return its next line; empty once it has ended, which it has if it says nothing for too long."""
        assert self.process.stdout is not None  # a pipe, above
        patience = threading.Timer(PATIENCE, self.process.kill)
        patience.start()
        try:
            return self.process.stdout.readline().strip()
        finally:
            patience.cancel()
            patience.join(60)

    def ask(self, line: object) -> str:
        """Tell it something, and return its answer."""
        assert self.process.stdin is not None  # a pipe, above
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def kill(self) -> None:
        """End it so that it can tidy nothing up."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(60) == -signal.SIGKILL

    def end(self) -> int:
        """Close its input, and return the exit code."""
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
        return self.process.returncode


@contextmanager
def elsewhere(program: str, *before: str) -> Iterator[Elsewhere]:
    """Run a program in another process, which says that it is ready; it has ended when the block has."""
    other = Elsewhere(program, *before)
    try:
        assert other.read() == "ready"
        yield other
    finally:
        if other.process.returncode is None:
            other.end()
        for pipe in (other.process.stdin, other.process.stdout):
            assert pipe is not None  # both are pipes
            pipe.close()


def producer(written: int = 5, *, capacity: int = CAPACITY, checksum: str = "none", secret: int = 0) -> str:
    """The program of a producer of "x" that writes as many more slots as it is told."""
    return PRODUCER.format(written=written, capacity=capacity, checksum=checksum, secret=secret)


def leave_dead_segment() -> bytearray:
    """Leave a whole segment of five slots, whose producer was killed, at the path "x"; its bytes."""
    with elsewhere(producer()) as other:
        other.kill()
    return bytearray(place("x").read_bytes())


def place(name: str) -> Path:
    """Return the path of a segment."""
    return Path(segment_directory(), name)


def put(data: bytes | bytearray) -> None:
    """Put a file at the path "x": a new one, since others may have the last one mapped."""
    descriptor = os.open(place("new"), os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    place("new").rename(place("x"))


def slots(first: int, n: int) -> list[list[int]]:
    """Return slots whose every word is their seq."""
    return [[seq] * 64 for seq in range(first, first + n)]


def read_all() -> list[int]:
    with open_consumer("x", FRAME, start="oldest") as c:
        return next(c.batches(timeout=5)).data[:, 0].tolist()


def take_over() -> None:
    open_producer("x", FRAME, capacity=CAPACITY).close()


def probe() -> None:
    _native.probe(segment_directory(), "x")


def bury() -> None:
    _native.unlink_dead(segment_directory(), "x")


WAYS = (read_all, take_over, probe, bury)


def refusal(attach: Callable[[], object]) -> LabHubError | None:
    """The typed error of an attempt; nothing else may come out."""
    try:
        attach()
    except LabHubError as error:
        return error
    return None
