"""The writing end of a recording: one thread that puts what the readers deliver into a store, commit by commit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from labhub.datablock.batch import Batch
from labhub.errors import LabHubError
from labhub.recording.attaching import is_of_disk, typed
from labhub.recording.channel import Arrival
from labhub.recording.layout import Gap, gap_rows, rows_of, slots_per_chunk
from labhub.recording.store import RecordingStore
from labhub.schema import Schema
from labhub.tasks import report

COMMIT_INTERVAL = 1.0
"""How much of a recording a kill may cost at most (in seconds)."""
FLUSH_NBYTES = 8 * 1024 * 1024
"""Slots of a channel are written when they are this much (in bytes), or at the next commit."""


class Queue:
    """Arrivals on their way from the readers to the writer; holds at most so many bytes.

    Parameters
    ----------
    nbytes : int
        Most bytes of slots that wait in it. One arrival may always enter an empty queue.
    """

    def __init__(self, nbytes: int) -> None:
        self._most = nbytes
        self._items: deque[Arrival] = deque()
        self._changed = threading.Condition()
        self.nbytes = 0
        self.dropping = False

    def put(self, arrival: Arrival) -> None:
        """Put one in; waits while it is full, and drops it once nobody takes any."""
        size = 0 if arrival.batch is None else arrival.batch.data.nbytes
        with self._changed:
            self._changed.wait_for(lambda: self.dropping or not self.nbytes or self.nbytes + size <= self._most)
            if not self.dropping:
                self._items.append(arrival)
                self.nbytes += size
            self._changed.notify_all()

    def get(self, timeout: float) -> Arrival | None:
        """Take one out; None if there is none within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items, timeout):
                return None
            arrival = self._items.popleft()
            self.nbytes -= 0 if arrival.batch is None else arrival.batch.data.nbytes
            self._changed.notify_all()
            return arrival

    def drop(self) -> None:
        """Throw away what is in it and what still comes."""
        with self._changed:
            self.dropping = True
            self._items.clear()
            self.nbytes = 0
            self._changed.notify_all()


@dataclass
class Pending:
    """What of a channel has arrived and is not yet written."""

    schema: Schema
    batches: list[Batch] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    n_slots: int = 0
    nbytes: int = 0
    written: int = 0
    counted: int = 0
    clock_offsets_ns: dict[int, int] = field(default_factory=dict)

    def add(self, arrival: Arrival) -> None:
        """Take in one arrival."""
        self.gaps += arrival.gaps
        if arrival.batch is not None:
            epoch, offset = int(arrival.batch.headers["epoch"][-1]), arrival.clock_offset_ns
            # The least one has the least delay in it: the clock filter of NTP (RFC 5905, section 10).
            self.clock_offsets_ns[epoch] = min(offset, self.clock_offsets_ns.get(epoch, offset))
            self.batches.append(arrival.batch)
            self.n_slots += len(arrival.batch)
            self.nbytes += arrival.batch.data.nbytes

    def take(self, *, whole_chunks: bool) -> Batch | None:
        """Take everything, or as much as ends with a whole chunk; None if that is nothing."""
        chunk = slots_per_chunk(self.schema)
        take = self.n_slots
        if whole_chunks:
            take = max(0, (self.written + self.n_slots) // chunk * chunk - self.written)
        if not take:
            return None
        joined = _joined(self.batches)
        first, rest = joined.split(take)
        self.batches = [rest] if len(rest) else []
        self.n_slots, self.nbytes = len(rest), rest.data.nbytes
        return first


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    first = batches[0]
    data, headers = np.concatenate([b.data for b in batches]), np.concatenate([b.headers for b in batches])
    return Batch(first.channel, first.schema, data, headers)


class Writer:
    """Writes the channels of a recording into one store after the other.

    An error of the disk's is raised; any other one ends only the channel that was being written.

    Parameters
    ----------
    open_store : callable
        Makes the next store.
    channels : dict of str to (Schema, dict)
        The channels, with the attributes of their groups.
    split_nbytes, split_seconds : int or float or None
        When the next store begins.

    Attributes
    ----------
    errors : dict of str to LabHubError
        What ended a channel here.
    """

    def __init__(
        self,
        open_store: Callable[[int], RecordingStore],
        channels: dict[str, tuple[Schema, dict[str, Any]]],
        split_nbytes: int | None,
        split_seconds: float | None,
    ) -> None:
        self._open_store = open_store
        self._channels = channels
        self._split_nbytes = split_nbytes
        self._split_seconds = split_seconds
        self._numbers = 0
        self.paths: list[str] = []
        self.errors: dict[str, LabHubError] = {}
        self.committed = dict.fromkeys(channels, 0)
        self._begin()

    def _begin(self) -> None:
        self.store = self._open_store(self._numbers)
        self._numbers += 1
        self.paths.append(str(self.store.path))
        self._pending = {name: Pending(schema) for name, (schema, _) in self._channels.items()}
        for channel, (_, attrs) in self._channels.items():
            if channel not in self.errors:
                self._try(channel, partial(self.store.add_group, channel, attrs))
        self._began = self._committed_at = time.monotonic()
        self._uncommitted = False
        self.store.commit()

    def accept(self, arrival: Arrival) -> None:
        """Take one arrival; write its channel if that is worth it."""
        if arrival.channel not in self.errors:
            self._try(arrival.channel, partial(self._take_in, arrival))

    def _take_in(self, arrival: Arrival) -> None:
        pending = self._pending[arrival.channel]
        pending.add(arrival)
        if arrival.error:
            self.store.describe(arrival.channel, recording_error=arrival.error)
            self._uncommitted = True
        if pending.nbytes >= FLUSH_NBYTES:
            self._flush(arrival.channel, whole_chunks=True)

    def _try(self, channel: str, step: Callable[[], None]) -> None:
        """Do something for one channel; if it fails, and the disk is not the reason, that channel ends here."""
        try:
            step()
        except Exception as error:  # around one channel: the others go on
            if is_of_disk(error):
                raise
            self.errors[channel] = typed(error, channel, str(self.store.path))
            pending = self._pending[channel]
            pending.batches, pending.gaps, pending.n_slots, pending.nbytes = [], [], 0, 0
            self.store.give_up(channel, str(self.errors[channel]))
            self._uncommitted = True

    def _flush_all(self) -> None:
        for channel in self._pending:
            if channel not in self.errors:
                self._try(channel, partial(self._flush, channel, whole_chunks=False))

    def tick(self) -> None:
        """Commit, and split, if it is time."""
        if time.monotonic() - self._committed_at < COMMIT_INTERVAL:
            return
        self.commit()
        late = self._split_seconds is not None and time.monotonic() - self._began >= self._split_seconds
        if late or (self._split_nbytes is not None and self.store.nbytes >= self._split_nbytes):
            self.close()
            self._begin()

    def mark(self, marker: dict[str, object]) -> None:
        """Note a marker; it counts with the next commit."""
        self.store.markers.append(marker)
        self._uncommitted = True

    def commit(self) -> None:
        """Write what has waited for a whole interval, and make everything count that is written."""
        self._flush_all()
        self._commit()

    def close(self) -> None:
        """Write everything and close the store as complete."""
        self._flush_all()
        self.store.close()
        self._count()

    def rescue(self) -> None:
        """After a failure: make count what is whole, with the space held back for this; else leave the last commit."""
        try:
            self.store.give_reserve()
            self._commit()
        except OSError:
            pass
        except Exception as error:  # noqa: BLE001  # what ended the recording is told; the last commit stays
            report("item_failed", error, thread="recording", item="last commit")
        finally:
            if not self.store.in_place:
                self._uncount()
            self.store.abandon()

    def _commit(self) -> None:
        self._committed_at = time.monotonic()
        if self._uncommitted:
            self.store.commit()
            self._count()

    def _count(self) -> None:
        self._uncommitted = False
        for channel, pending in self._pending.items():
            self.committed[channel] += pending.written - pending.counted
            pending.counted = pending.written

    def _uncount(self) -> None:
        """What was in a store that is no longer there is not stored."""
        for channel, pending in self._pending.items():
            self.committed[channel] -= pending.counted
            pending.counted = 0

    def _flush(self, channel: str, *, whole_chunks: bool) -> None:
        pending = self._pending[channel]
        if pending.gaps:
            self.store.append(channel, pending.schema, gap_rows(pending.gaps))
            pending.gaps = []
            self._uncommitted = True
        batch = pending.take(whole_chunks=whole_chunks)
        if batch is not None:
            self.store.append(channel, pending.schema, rows_of(batch))
            epochs, offsets = list(pending.clock_offsets_ns), list(pending.clock_offsets_ns.values())
            self.store.describe(channel, clock_epochs=epochs, clock_offset_ns=offsets)
            pending.written += len(batch)
            self._uncommitted = True
