"""MomentumX in its synchronous mode, in which nothing is lost."""

from __future__ import annotations

import importlib.util
import time
from itertools import repeat

import numpy as np

from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import measured, rows, values
from bench.workload import Workload

MOST_BUFFERS = 512
"""Its version 2.9 refuses more."""


class MomentumX(Contender):
    """Its own numpy integration on both sides."""

    name = "MomentumX"

    def missing(self) -> str | None:
        """It is a package of its own."""
        return None if importlib.util.find_spec("momentumx") else "momentumx is not installed"

    def supports(self, workload: Workload) -> bool:
        """Take part in streams of lossless readers, with as many slots as it can have."""
        return workload.kind == "stream" and not workload.lossy and workload.slots_in_flight <= MOST_BUFFERS

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Fill its buffers in place."""
        import momentumx

        stream = momentumx.Producer(
            place.name,
            buffer_size=workload.nbytes,
            buffer_count=workload.slots_in_flight,
            sync=True,
            context=str(place.directory),
        )
        gate.created()
        deadline = time.monotonic() + PATIENCE
        while stream.subscriber_count < workload.consumers and time.monotonic() < deadline:
            time.sleep(0.001)
        gate.start()
        nbytes, following = workload.nbytes, stream.next_to_send
        for row in rows(workload):
            buffer = following()
            np.frombuffer(buffer, np.int64)[: row.size] = row
            buffer.send(nbytes)
        gate.finish()
        stream.end()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Look into its buffers in place; each is released when the next one comes."""
        import momentumx

        gate.await_created()
        stream = momentumx.Consumer(place.name, context=str(place.directory))
        gate.start()
        words = workload.nbytes // 8
        arrays = map(np.frombuffer, iter(stream.receive, None), repeat(np.int64), repeat(words))
        figures = measured(values(arrays, workload), workload)
        gate.finish()
        return figures
