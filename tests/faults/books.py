"""The books of one reader: every slot checked, every seq accounted for."""

from __future__ import annotations

import numpy as np

from labhub.datablock.consumer import DataBlockConsumer
from labhub.errors import Evicted
from tests.faults.children import is_whole


class Books:
    """What one reader of slots made by `payload` has received.

    Attributes
    ----------
    received : int
        How many slots.
    expected : int
        Seq of the next one, if none is lost.
    """

    def __init__(self, consumer: DataBlockConsumer) -> None:
        self.consumer = consumer
        self.received = 0
        self.began = self.expected = consumer.cursor

    def read(self, timeout: float = 60.0) -> bool:
        """Wait for one batch and enter it; False at the end of the stream."""
        batch = next(self.consumer.batches(timeout=timeout), None)
        if batch is None:
            return False
        assert batch.seq[0] == self.expected + batch.lost, (batch.seq[0], self.expected, batch.lost)
        assert np.all(np.diff(batch.seq.astype(np.int64)) == 1)
        for seq, slot in zip(batch.seq, batch.data, strict=True):
            assert is_whole(slot, int(seq)), f"slot {seq} is torn"
        self.received += len(batch)
        self.expected = int(batch.seq[-1]) + 1
        return True

    def catch_up(self) -> None:
        """Read what is there."""
        while self.consumer.lag:
            self.read()

    def enter(self, evicted: Evicted) -> None:
        """Note an eviction: it says what was lost by it."""
        self.expected += evicted.lost

    def balance(self) -> None:
        """Whatever was produced was received, or is counted as lost; nothing is unread."""
        assert self.expected == self.consumer.head
        assert self.received + self.consumer.lost == self.consumer.head - self.began
