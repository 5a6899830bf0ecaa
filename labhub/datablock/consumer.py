"""A reader of a channel."""

from __future__ import annotations

import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.config import (
    ConsumerSyncPolicy,
    DataBlockConfig,
    capacity_of,
    checked_count,
    nanoseconds,
    nanoseconds_from_ms,
)
from labhub.datablock.iteration import Batches, Datasets, batches_of
from labhub.datablock.location import segment_directory
from labhub.datablock.reading import ConsumeHandle, ReadSlot
from labhub.errors import InvalidArgument, TimeoutExpired
from labhub.names import check_name
from labhub.schema import Schema

if TYPE_CHECKING:
    import xarray as xr

Mode = Literal["stream", "latest", "lossless"]
Start = Literal["newest", "oldest"] | int


class DataBlockConsumer:
    """Reads the slots of one channel. Made by `open_consumer` or `find_datablock_consumer`.

    Any thread may use it, one at a time.

    Attributes
    ----------
    name : str
        The channel.
    schema : Schema
        What one slot looks like.
    mode : {"stream", "latest", "lossless"}
        ``"stream"``: in order, never slows the producer, counts what it lost. ``"latest"``: the newest slot; those
        in between count as lost. ``"lossless"``: the producer waits for it.
    """

    def __init__(self, native: _native.Consumer, name: str, schema: Schema, mode: Mode) -> None:
        self._native = native
        self.name = name
        self.schema = schema
        self.mode: Mode = mode
        self._views: dict[int, NDArray[Any]] = {}
        self._ready: list[Batch] = []  # read, but not handed out yet
        self._untold = 0  # lost, but in no batch yet
        self._finalize = weakref.finalize(self, native.close)

    # ---------------------------------------------------------------------------------------------------- iteration

    def batches(
        self,
        max_slots: int | None = None,
        min_slots: int = 1,
        timeout: float | None = None,
        *,
        until_gone: bool = False,
    ) -> Batches:
        """Iterate over the unread slots, many at a time; with ``for`` or ``async for``.

        Parameters
        ----------
        max_slots : int, optional
            Most slots in one batch; what fits 32 MB unless given. More than the ring holds is as good as all of it.
        min_slots : int
            Wait until so many are unread (or the stream has ended).
        timeout : float, optional
            How long to wait for each batch (in seconds); None waits for ever.
        until_gone : bool
            Raise `ProducerGone` as soon as the producer has died and everything is read, instead of waiting for another
            producer to take over.

        Returns
        -------
        Batches
            An iterator of `Batch`. It ends when the producer has closed the channel and everything is read.

        Raises
        ------
        TimeoutExpired
            While iterating, if nothing came within `timeout`; the iteration can go on.
        Evicted
            While iterating, if this lossless consumer held the producer up for too long; the iteration can go on.
        ProducerGone
            While iterating, see `until_gone`.
        """
        return batches_of(self, max_slots, min_slots, timeout, until_gone)

    def datasets(
        self,
        max_slots: int | None = None,
        min_slots: int = 1,
        timeout: float | None = None,
        *,
        until_gone: bool = False,
    ) -> Datasets:
        """Iterate over the unread slots as `xarray.Dataset`; the parameters and errors are those of `batches`.

        Returns
        -------
        Datasets
            An iterator of `xarray.Dataset`; `Batch.to_xarray` says what is in one.
        """
        return Datasets(self.batches(max_slots, min_slots, timeout, until_gone=until_gone))

    def __iter__(self) -> Batches:
        return self.batches()

    def __aiter__(self) -> Batches:
        return self.batches()

    def next_batch(self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool) -> Batch | None:
        """Wait for one batch; None at the end of the stream. `batches` is the friendlier form, with the same errors."""
        if self._ready:
            return self._ready.pop(0)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            unread = self._native.wait(min_slots, nanoseconds(left), until_gone)
            if unread == _native.STREAM_ENDED:
                return None
            if unread == 0:
                raise self._expired(timeout)
            if self.mode == "latest":
                self._native.skip_to_newest()
                max_slots = 1
            if batch := self._read(min(unread, max_slots)):
                return batch

    def put_back(self, batch: Batch) -> None:
        """Hand a batch out once more, first: it was read for somebody who no longer waits."""
        self._ready.insert(0, batch)

    def _read(self, n: int) -> Batch | None:
        data = np.empty((n, *self.schema.shape), self.schema.dtype)
        headers = np.empty(n, SLOT_HEADER)
        count, lost = self._native.read(data.reshape(-1).view(np.uint8), headers.view(np.void))
        self._untold += lost
        if count == 0:  # the producer was faster than the copy; what it cost is told with the next batch
            return None
        batch = Batch(self.name, self.schema, data[:count], headers[:count], self._untold)
        self._untold = 0
        epochs = headers["epoch"][:count]
        while epochs[0] != epochs[-1]:  # a takeover in the middle: a batch never spans two epochs
            seam = int(np.argmax(epochs != epochs[0]))
            batch, rest = batch.split(seam)
            self._ready.append(batch)
            batch, epochs = rest, epochs[seam:]
        self._ready.append(batch)
        return self._ready.pop(0)

    def _expired(self, timeout: float | None) -> TimeoutExpired:
        return TimeoutExpired(
            f"nothing new on {self.name!r} within {timeout:g} s"
            + ("" if self.producer_alive or self.ended else "; its producer has died")
        )

    # ------------------------------------------------------------------------------------------------------ history

    def latest(self, timeout: float | None = None) -> Batch:
        """Return the newest slot, without moving the cursor; waits for the first one.

        Parameters
        ----------
        timeout : float, optional
            How long to wait (in seconds); None waits for ever.

        Returns
        -------
        Batch
            Of one slot.

        Raises
        ------
        TimeoutExpired
            If nothing was ever written and nothing came in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            head = self._native.head
            if head:
                batch = self._peek(head - 1, 1)
                if len(batch):
                    return batch
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            unread = self._native.wait(1, nanoseconds(left))
            if unread <= 0 and self._native.head == head:
                raise self._expired(timeout or 0.0)

    def snapshot(self, last: int | None = None, seconds: float | None = None) -> Batch:
        """Return recent history from the ring, without moving the cursor.

        Parameters
        ----------
        last : int, optional
            At most so many slots, the newest ones.
        seconds : float, optional
            Only slots whose timestamp is at most so much older than the newest one's. All that the ring holds if
            neither is given.

        Returns
        -------
        Batch
            Possibly empty. `lost` is 0: nothing is missing that was asked for and still there.
        """
        head = self._native.head
        n = self.capacity if last is None else checked_count("last", last)
        first = max(0, head - min(n, self.capacity))
        if seconds is not None:
            first = max(first, self._first_since(first, head, seconds))
        return self._peek(first, head - first)

    def _first_since(self, first: int, head: int, seconds: float) -> int:
        span = nanoseconds(seconds, "seconds")
        newest = self._peek(head - 1, 1) if head else None
        if newest is None or not len(newest):
            return first
        since = int(newest.timestamp_ns[0]) - span
        low, high = first, head - 1  # timestamps never fall within an epoch
        while low < high:
            middle = (low + high) // 2
            probe = self._peek(middle, 1)
            if len(probe) and probe.timestamp_ns[0] >= since:
                high = middle
            else:
                low = middle + 1
        return low

    def _peek(self, first: int, n: int) -> Batch:
        data = np.empty((n, *self.schema.shape), self.schema.dtype)
        headers = np.empty(n, SLOT_HEADER)
        count = 0
        if n:
            _, count = self._native.peek(first, data.reshape(-1).view(np.uint8), headers.view(np.void))
        return Batch(self.name, self.schema, data[:count], headers[:count])

    def to_xarray(self, last: int | None = None, seconds: float | None = None) -> xr.Dataset:
        """Return recent history as an `xarray.Dataset`; see `snapshot` and `Batch.to_xarray`."""
        return self.snapshot(last, seconds).to_xarray()

    # ------------------------------------------------------------------------------------------------- single slots

    def slot(self, timeout: float | None = None) -> ReadSlot:
        """Open the next slot (the newest one in mode ``"latest"``) in place, without a copy.

        Parameters
        ----------
        timeout : float, optional
            How long to wait (in seconds); None waits for ever.

        Returns
        -------
        ReadSlot
            A context manager with a read-only `array`. What it showed is true only once it was left without `Lapped` or
            `Evicted`.
        """
        nanoseconds(timeout)
        return ReadSlot(self, timeout)

    def acquire_consume_slot(self, timeout_ms: int) -> ConsumeHandle | None:
        """Read the next slot, or the newest unseen one of a LATEST_ONLY segment (reference level).

        Parameters
        ----------
        timeout_ms : int
            How long to wait (in milliseconds); below 0 for ever.

        Returns
        -------
        ConsumeHandle or None
            None after a timeout and at the end of the stream.

        Raises
        ------
        Evicted
        """
        timeout = nanoseconds_from_ms(timeout_ms)
        try:
            batch = self.next_batch(1, 1, None if timeout < 0 else timeout / 1e9, False)
        except TimeoutExpired:
            return None
        return None if batch is None else ConsumeHandle(batch)

    def _view(self, index: int) -> NDArray[Any]:
        """Return the read-only array of one slot; made once, as making it costs more than a read."""
        view = self._views.get(index)
        if view is None:
            payload = self._native.mapping.payload()
            start = index * self._native.stride
            raw = payload[start : start + self.schema.slot_nbytes]
            view = self._views[index] = raw.view(self.schema.dtype).reshape(self.schema.shape)
        return view

    # -------------------------------------------------------------------------------------------------------- state

    @property
    def capacity(self) -> int:
        """Number of slots of the ring."""
        return self._native.capacity

    @property
    def cursor(self) -> int:
        """Seq of the slot that is read next."""
        return self._native.cursor

    @property
    def head(self) -> int:
        """Seq of the slot that is committed next."""
        return self._native.head

    @property
    def lag(self) -> int:
        """How many slots the cursor is behind the head."""
        return max(0, self.head - self.cursor)

    @property
    def lost(self) -> int:
        """How many slots this consumer lost so far, exactly."""
        return self._native.lost

    @property
    def epoch(self) -> int:
        """Epoch of the producer now; it rises with each takeover."""
        return self._native.epoch

    @property
    def ended(self) -> bool:
        """Whether the producer has closed the channel; there may still be slots to read."""
        return self._native.ended

    @property
    def producer_alive(self) -> bool:
        """Whether a living process holds the producer's lock."""
        return self._native.producer_alive

    @property
    def instance_id(self) -> bytes:
        """Random 16 bytes that name this incarnation of the segment."""
        return self._native.instance_id

    @property
    def closed(self) -> bool:
        """Whether this consumer was closed."""
        return self._native.closed

    def seek(self, start: Start) -> None:
        """Move the cursor of a lossy consumer to ``"newest"``, ``"oldest"`` or a seq; nothing counts as lost.

        Raises
        ------
        InvalidArgument
            For a lossless consumer: it reads every slot.
        """
        self._native.seek(_start(start))
        self._ready.clear()

    def close(self) -> None:
        """Stop reading; a lossless consumer no longer holds the producer up. Twice is harmless."""
        self._native.close()
        self._finalize.detach()  # not before: a close that another thread's call refused is tried again

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"cursor={self.cursor}, lag={self.lag}, lost={self.lost}"
        return f"DataBlockConsumer({self.name!r}, {self.schema!r}, mode={self.mode!r}, {state})"


def _start(start: object) -> int:
    match start:
        case "newest":
            return _native.START_NEWEST
        case "oldest":
            return _native.START_OLDEST
        case int() if start >= 0 and not isinstance(start, bool):
            return start
    raise InvalidArgument(f"start is 'newest', 'oldest' or a seq, not {start!r}")


def open_consumer(
    name: str,
    schema: Schema | None = None,
    *,
    directory: str | None = None,
    mode: Mode = "stream",
    start: Start = "newest",
    instance_id: bytes = b"",
    shared_secret: int = 0,
) -> DataBlockConsumer:
    """Attach to the segment of a channel.

    Parameters
    ----------
    name : str
        The channel.
    schema : Schema, optional
        What one slot must look like; None reads uninterpreted bytes.
    directory : str, optional
        Where its segment is; the directory of the broker ``default``.
    mode : {"stream", "latest", "lossless"}
        See `DataBlockConsumer`.
    start : {"newest", "oldest"} or int
        Where to begin: with the next slot to be written, as far back as the ring holds, or with a seq.
    instance_id : bytes
        Attach only to this incarnation of the segment (16 bytes; empty for any).
    shared_secret : int
        Attach only to a segment with this secret (0 for any).

    Returns
    -------
    DataBlockConsumer

    Raises
    ------
    ChannelNotFound, ChannelBusy, SchemaMismatch, SegmentTokenMismatch, SegmentAccessError, IncompatibleSegment
    InvalidName, InvalidArgument
    """
    if mode not in get_args(Mode):
        raise InvalidArgument(f"mode is 'stream', 'latest' or 'lossless', not {mode!r}")
    native = _native.Consumer(
        segment_directory() if directory is None else directory,
        check_name(name),
        lossless=mode == "lossless",
        start=_start(start),
        schema_hash=b"" if schema is None else schema.layout_hash,
        # Also where the segment declares no schema, and its hash is compared with nothing.
        slot_nbytes=None if schema is None else schema.slot_nbytes,
        instance_id=instance_id,
        shared_secret=shared_secret,
    )
    return DataBlockConsumer(native, name, schema or Schema.raw(native.slot_nbytes), mode)


def find_datablock_consumer(
    shm_name: str, shared_secret: int, config: DataBlockConfig | None = None
) -> DataBlockConsumer:
    """Attach to a segment (reference level).

    It reads as the segment's `ConsumerSyncPolicy` says: the newest slot under LATEST_ONLY, else every slot, beginning
    with the oldest that is still there.

    Parameters
    ----------
    shm_name : str
        Name of the segment.
    shared_secret : int
        Must match the producer's; 0 asks for none.
    config : DataBlockConfig, optional
        Its fields that are not None must match the segment.

    Returns
    -------
    DataBlockConsumer

    Raises
    ------
    ChannelNotFound, ChannelBusy, SegmentTokenMismatch, SegmentAccessError, IncompatibleSegment, InvalidName
    """
    directory = segment_directory()
    config = config or DataBlockConfig()
    report = _native.probe(directory, check_name(shm_name, "segment"))
    latest = report["sync_policy"] == ConsumerSyncPolicy.LATEST_ONLY
    capacity = config.ring_buffer_capacity
    native = _native.Consumer(
        directory,
        shm_name,
        lossless=not latest,
        start=_native.START_LAST if latest else _native.START_OLDEST,
        shared_secret=shared_secret or config.shared_secret or 0,
        capacity=capacity if config.policy is None or capacity is None else capacity_of(config.policy, capacity),
        slot_nbytes=config.logical_unit_size,
        policy=config.policy,
        sync_policy=config.consumer_sync_policy,
        checksum_policy=config.checksum_policy,
    )
    return DataBlockConsumer(native, shm_name, Schema.raw(native.slot_nbytes), "latest" if latest else "lossless")


find_datablock_consumer_impl = find_datablock_consumer
