"""What the standard library has: a pipe and a queue."""

from __future__ import annotations

from itertools import repeat
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from typing import cast

from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import measured, rows, values_of_messages
from bench.workload import Workload


def one_to_one(workload: Workload) -> bool:
    """Whether it is a stream to a single lossless reader."""
    return workload.kind == "stream" and workload.readers == 1


class Pipe(Contender):
    """`multiprocessing.Pipe`, with bytes. What is in flight is what the kernel's buffer holds, not the workload's."""

    name = "multiprocessing.Pipe"

    def supports(self, workload: Workload) -> bool:
        """A pipe has two ends."""
        return one_to_one(workload)

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Make the pipe."""
        return context.Pipe(duplex=False)

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Send from the source."""
        _, end = cast(tuple[Connection, Connection], place.shared)
        gate.start()
        for row in rows(workload):
            end.send_bytes(row)
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Receive bytes; large ones into the same buffer, which saves an allocation each."""
        end, _ = cast(tuple[Connection, Connection], place.shared)
        buffer = bytearray(workload.nbytes)
        received = (end.recv_bytes() for _ in range(workload.amount))
        if workload.nbytes > 4096:
            received = (end.recv_bytes_into(buffer) and buffer for _ in range(workload.amount))
        gate.start()
        figures = measured(values_of_messages(received, workload), workload)
        gate.finish()
        return figures


class QueueOfBytes(Contender):
    """`multiprocessing.Queue`: a thread, pickles and a pipe."""

    name = "multiprocessing.Queue"

    def supports(self, workload: Workload) -> bool:
        """A queue gives each item to one taker."""
        return one_to_one(workload)

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Make the queue."""
        return context.Queue(workload.slots_in_flight)

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Put bytes, which pickle faster than arrays."""
        queue = cast("Queue[bytes]", place.shared)
        gate.start()
        for row in rows(workload):
            queue.put(row.tobytes(), timeout=PATIENCE)
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Get bytes."""
        queue = cast("Queue[bytes]", place.shared)
        gate.start()
        figures = measured(values_of_messages(map(queue.get, repeat(True), repeat(PATIENCE)), workload), workload)
        gate.finish()
        return figures
