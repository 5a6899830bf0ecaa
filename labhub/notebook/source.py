"""What a widget reads: one channel through a lossy reader of its own, that follows the channel and never waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal

from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.errors import TimeoutExpired
from labhub.hub import Hub
from labhub.schema import Schema

BATCH_NBYTES = 1024 * 1024
"""Most bytes of one batch, with the slots' headers; or one slot."""

HISTORY_NBYTES = 64 * 1024 * 1024
"""Most bytes that are read from the ring at the beginning."""

FRAME_SECONDS = 0.02
"""After this time a frame is drawn, whatever is unread (in seconds); what is too much for that is lost, and marked."""


class Source:
    """One channel, as a widget reads it. The producer never notices.

    Parameters
    ----------
    hub : Hub
        Where the channel is.
    channel : str
        Its name.
    mode : {"stream", "latest"}
        All slots, or only the newest one.

    Raises
    ------
    ChannelNotFound, BrokerUnreachable, SegmentAccessError, IncompatibleSegment
        As `Hub.consumer`.
    """

    def __init__(self, hub: Hub, channel: str, mode: Literal["stream", "latest"] = "stream") -> None:
        self.channel = channel
        self._hub = hub
        self._consumer = hub.consumer(channel, mode, follow=True)

    @property
    def schema(self) -> Schema:
        """What one slot looks like, now."""
        return self._consumer.schema

    @property
    def lost(self) -> int:
        """Slots that the reader has lost."""
        return self._consumer.lost

    @property
    def closed(self) -> bool:
        """Whether the reader was closed, by its hub, too."""
        return self._consumer.closed

    @property
    def gone(self) -> str:
        """Why nothing comes: ``"ended"``, ``"died"``, or empty."""
        if self._consumer.ended:
            return "ended"
        return "" if self._consumer.producer_alive else "died"

    def history(self, seconds: float) -> Batch:
        """What the ring holds of the last seconds; `read` goes on behind it, and nothing is lost in between."""
        slots = max(1, HISTORY_NBYTES // self.schema.slot_nbytes)
        batch = self._consumer.snapshot(last=slots, seconds=seconds)
        if len(batch):
            self._consumer.seek(int(batch.seq[-1]) + 1)
        return batch

    def read(self) -> Iterator[Batch]:
        """Yield what is unread now, without waiting, and not for longer than a frame has time."""
        until = time.monotonic() + FRAME_SECONDS
        while time.monotonic() < until:
            slots = max(1, BATCH_NBYTES // (self.schema.slot_nbytes + SLOT_HEADER.itemsize))
            consumer = self._consumer
            # An ended channel can only come back through the broker; asking one that is away would take a second.
            if not consumer.lag and (not consumer.ended or not self._hub.connected):
                return
            try:
                batch = consumer.next_batch(slots, 1, 0.0, False)
            except TimeoutExpired:
                return
            consumer.in_hand.item = None  # no Ctrl-C comes into this thread
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Give the reader back. Twice is harmless."""
        self._consumer.close()
