"""How fast the benchmark's own reader is, when every slot is there already."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.contender import Contender, Figures, Gate, Place
from bench.payload import Slot, blocks, buffer, measured, measured_in_batches, rows, values
from bench.workload import Workload


class ReaderAlone(Contender):
    """The loops that verify, on slots of its own: whoever comes near to it is bounded by the harness."""

    name = "reader's loop alone"
    role = "limit"
    batches = True

    def supports(self, workload: Workload) -> bool:
        """One reader's loop is one reader's loop."""
        return workload.kind == "stream" and workload.readers == 1

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Leave the machine to the other."""
        gate.start()
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Read the source itself."""
        gate.start()
        if workload.batch > 1:
            figures = measured_in_batches(self._copies(workload), workload, place)
        else:
            figures = measured(values(rows(workload), workload), workload)
        gate.finish()
        return figures

    def _copies(self, workload: Workload) -> Iterator[Slot]:
        batch = buffer(workload)
        for block in blocks(workload):
            np.copyto(batch, block)
            yield batch
