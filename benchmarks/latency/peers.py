"""What else there is in Python: a hand-written cell in shared memory, a pipe, and ZeroMQ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.shared_memory import SharedMemory
from struct import Struct
from typing import cast

import zmq
from bench.contender import PATIENCE, Gate, Place
from bench.workload import Workload

from latency.duplex import Duplex, Loops, PythonLoops, Receive, Send

RECORD = Struct("=q56x")
CELL = 2 * RECORD.size
"""A record, and a count of the records so far on a cache line of its own."""


class Polling(Duplex):
    """One record each way in `multiprocessing.shared_memory`, and a count that the reader looks at without a pause."""

    name = "shared_memory, polling"
    sleeps = False

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Share two cells."""
        first = place.consumer < 0
        if not first:
            gate.await_created()
        memory = SharedMemory(place.name, create=first, size=2 * CELL)
        if first:
            gate.created()
        gate.start()
        cells = cast(memoryview, memory.buf)
        own, other = (cells[:CELL], cells[CELL : 2 * CELL])[:: 1 if first else -1]
        counts = own[RECORD.size :].cast("q"), other[RECORD.size :].cast("q")
        try:
            yield PythonLoops(self.sender(own, counts[0]), self.receiver(other, counts[1]))
        finally:
            for view in (*counts, own, other):
                view.release()
            memory.close()
            if first:
                memory.unlink()

    def sender(self, cell: memoryview, count: memoryview) -> Send:
        """Write the record, then the count; x86 keeps the order."""
        pack = RECORD.pack_into

        def send(word: int) -> None:
            pack(cell, 0, word)
            count[0] += 1

        return send

    def receiver(self, cell: memoryview, count: memoryview) -> Receive:
        """Wait for the next count, and read the record."""
        known, unpack = 0, RECORD.unpack_from

        def receive() -> int:
            nonlocal known
            known += 1
            while count[0] < known:
                pass
            (word,) = unpack(cell)
            return int(word)

        return receive


class Pipe(Duplex):
    """`multiprocessing.Pipe`, with bytes."""

    name = "multiprocessing.Pipe"

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Make the pipe, which has two ways."""
        return context.Pipe()

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Take one end each."""
        end = cast(tuple[Connection, Connection], place.shared)[place.consumer]
        put, get, pack, unpack = end.send_bytes, end.recv_bytes, RECORD.pack, RECORD.unpack
        gate.start()
        yield PythonLoops(lambda word: put(pack(word)), lambda: int(unpack(get())[0]))


class ZeroMQ(Duplex):
    """A pair of sockets over ipc."""

    name = "pyzmq ipc"

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Bind one, connect the other."""
        with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
            address = f"ipc://{place.directory}/socket"
            if place.consumer < 0:
                socket.bind(address)
                gate.created()
            else:
                gate.await_created()
                socket.connect(address)
            gate.start()
            put, get, pack, unpack = socket.send, socket.recv, RECORD.pack, RECORD.unpack
            yield PythonLoops(lambda word: put(pack(word)), lambda: int(unpack(get())[0]))
