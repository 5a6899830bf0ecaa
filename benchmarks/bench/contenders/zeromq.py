"""pyzmq over ipc: PUSH and PULL for one reader, a PUB that waits for its subscribers for more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count

import zmq

from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import blocks, measured, rows, values_of_messages
from bench.workload import Workload

ZERO_COPY_FROM = 64 * 1024
"""Messages from this size on (in bytes) are handed over without a copy, as pyzmq's own threshold has it."""


@contextmanager
def socket(kind: int, workload: Workload) -> Iterator[zmq.Socket[bytes]]:
    """Open a socket with half of what may be in flight: the other side has the other half."""
    with zmq.Context() as context, context.socket(kind) as opened:
        half = max(1, workload.slots_in_flight // (2 * workload.batch))
        opened.set_hwm(half)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
        opened.setsockopt(zmq.SNDTIMEO, int(PATIENCE * 1000))
        yield opened


class ZeroMQ(Contender):
    """One message for each slot; in batches one message of many parts."""

    name = "pyzmq ipc"
    batches = True

    def supports(self, workload: Workload) -> bool:
        """Take part in streams of lossless readers."""
        return workload.kind == "stream" and not workload.lossy

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Send from the source."""
        with socket(zmq.PUSH if workload.consumers == 1 else zmq.XPUB, workload) as out:
            if workload.consumers > 1:
                out.setsockopt(zmq.XPUB_NODROP, 1)  # wait at the high-water mark rather than lose
                out.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of each subscription, also of the same again
            out.bind(f"ipc://{place.directory}/socket")
            gate.created()
            if workload.consumers > 1:
                for _ in range(workload.consumers):
                    out.recv()  # the subscriptions
            gate.start()
            if workload.batch > 1:
                for block in blocks(workload):
                    out.send_multipart(block)
            else:
                copy = workload.nbytes < ZERO_COPY_FROM
                for row in rows(workload):
                    out.send(row, copy=copy)
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Receive bytes, or frames that are not copied once more."""
        gate.await_created()
        with socket(zmq.PULL if workload.consumers == 1 else zmq.SUB, workload) as source:
            if workload.consumers > 1:
                source.setsockopt(zmq.SUBSCRIBE, b"")
            source.connect(f"ipc://{place.directory}/socket")
            copy = workload.nbytes < ZERO_COPY_FROM
            if workload.batch > 1:
                messages = chain.from_iterable(source.recv_multipart(copy=copy) for _ in count())
            elif copy:
                messages = (source.recv() for _ in count())
            else:
                messages = (source.recv(copy=False).buffer for _ in count())
            gate.start()
            figures = measured(values_of_messages(messages, workload), workload)
            gate.finish()
            return figures
