"""What one reader received, counted slot by slot."""

from __future__ import annotations

import time
from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from labhub.datablock.batch import Batch


class Tally:
    """Counts what one reader received; nothing here is derived from what was written or lost.

    Attributes
    ----------
    received : int
        Slots received.
    disordered : int
        Slots whose seq did not rise.
    """

    def __init__(self) -> None:
        # The clock that stamps the slots: monotonic, with an offset fixed once.
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._latencies_ms = array("d")
        self._first_ns = self._latest_ns = 0
        self._n_first = 0
        self._next_seq = 0
        self.received = 0
        self.disordered = 0

    def add(self, batch: Batch) -> None:
        """Count a batch that has just arrived."""
        now = time.monotonic_ns()
        self._latencies_ms.extend(((now + self._offset_ns - batch.timestamp_ns) / 1e6).tolist())
        steps = np.diff(batch.seq.astype(np.int64), prepend=self._next_seq - 1)
        self.disordered += int(np.count_nonzero(steps < 1))
        self._next_seq = int(batch.seq[-1]) + 1
        if not self.received:
            self._first_ns, self._n_first = now, len(batch)
        self._latest_ns = now
        self.received += len(batch)

    @property
    def rate(self) -> float:
        """Slots received per second since the first batch (in Hz)."""
        elapsed = (self._latest_ns - self._first_ns) / 1e9
        return (self.received - self._n_first) / elapsed if elapsed > 0 else 0.0

    def percentiles(self) -> tuple[float, float] | tuple[None, None]:
        """Median and 99th percentile of the latency (in milliseconds); None before the first slot."""
        if not self.received:
            return None, None
        p50, p99 = np.percentile(np.array(self._latencies_ms), [50, 99])
        return float(p50), float(p99)
