"""A reader of a channel."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.arguments import LARGEST, checked_flag
from labhub.bound import Bound
from labhub.datablock.batch import Batch
from labhub.datablock.checksums import Findings
from labhub.datablock.config import (
    ChecksumPolicy,
    nanoseconds,
    nanoseconds_from_ms,
)
from labhub.datablock.gathering import Gathering
from labhub.datablock.history import History
from labhub.datablock.iteration import Batches, Datasets, batches_of
from labhub.datablock.location import segment_directory
from labhub.datablock.reading import ConsumeHandle, ReadSlot
from labhub.ending import finalizer
from labhub.errors import InvalidArgument, TimeoutExpired
from labhub.names import check_name
from labhub.schema import Schema
from labhub.words import quoted

if TYPE_CHECKING:
    import xarray as xr

Mode = Literal["stream", "latest", "lossless"]
Start = Literal["newest", "oldest"] | int


class DataBlockConsumer(Gathering, Bound):
    """Reads the slots of one channel. Made by `open_consumer` or `find_datablock_consumer`.

    Any thread may use it, one at a time; any may close it.

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
        super().__init__(native, name, schema, mode)
        self._views: dict[int, NDArray[Any]] = {}
        self._in_place: list[NDArray[Any] | None] = []  # the same, by index, for `views`
        self._history = History(native, name, schema, self._findings)
        self._finalize = finalizer(self, native.close)

    # ---------------------------------------------------------------------------------------------------- iteration

    def batches(
        self,
        max_slots: int | None = None,
        min_slots: int = 1,
        timeout: float | None = None,
        *,
        until_gone: bool = False,
        out: NDArray[Any] | None = None,
    ) -> Batches:
        """Iterate over the unread slots, many at a time; with ``for`` or ``async for``.

        Parameters
        ----------
        max_slots : int, optional
            Most slots in one batch; what fits 32 MB unless given, or `min_slots` if that is more.
        min_slots : int
            Wait for so many slots, which may be more than the ring holds: the reader gathers them in its own memory.
            The slots of a batch follow each other and come from one producer. So a batch is shorter where the next
            slots were lost or are corrupt, where another producer took over, and at the end of the stream.
        timeout : float, optional
            How long to wait for each batch (in seconds); None waits for ever.
        until_gone : bool
            Raise `ProducerGone` as soon as the producer has died and everything is read, instead of waiting for another
            producer to take over.
        out : ndarray of shape (n_slots, ...), optional
            Read into this array over and over instead of new memory for each batch: for large slots at high rates, as
            it stays in the caches. `Batch.data` is a part of it, so each batch overwrites the one before.

        Returns
        -------
        Batches
            An iterator of `Batch`. It ends when the producer has closed the channel and everything is read, and when
            another thread closes this consumer.

        Raises
        ------
        TimeoutExpired
            While iterating, if fewer than `min_slots` came within `timeout`. Nothing is lost: those that came are kept
            for the next batch, and the iteration can go on.
        Evicted
            While iterating, if this lossless consumer held the producer up for too long; the iteration can go on.
        ProducerGone
            While iterating, see `until_gone`.
        ChecksumError
            While iterating, for each corrupt slot (``checksum="enforced"``), behind the batch of those before it; the
            iteration can go on.
        """
        return batches_of(self, max_slots, min_slots, timeout, until_gone, out)

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

    def _instead(self) -> str:
        return "in the other process, open another one; its batches can be sent"

    def __iter__(self) -> Batches:
        return self.batches()

    def __aiter__(self) -> Batches:
        return self.batches()

    @property
    def findings(self) -> Findings | None:
        """The corrupt slots that were found so far; None if no checksum is verified."""
        return self._findings

    def share_findings(self, findings: Findings) -> None:
        """Go on from what another consumer of the same segment has found: nobody is told of it again."""
        self._findings = findings
        self._history = History(self._native, self.name, self.schema, findings)

    def tell_corrupt(self, report: Callable[[int], object]) -> None:
        """Have `report` called with the seq of each corrupt slot (``checksum="enforced"``), once, as it is found."""
        if self._findings is not None:
            self._findings.report = report

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
        ChecksumError
            If the slot is corrupt (``checksum="enforced"``); the next call passes over it.
        """
        batch = self._history.latest(timeout)
        if batch is None:
            raise self.expired(timeout or 0.0)
        return batch

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
            Possibly empty. `lost` is 0: nothing is missing that was asked for and still there. `complete` is False if
            the ring has overwritten slots that were asked for.

        Raises
        ------
        ChecksumError
            If one of them is corrupt (``checksum="enforced"``); later snapshots leave that slot out.
        """
        return self._history.snapshot(last, seconds)

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
            A context manager with a read-only `array`. What it showed is true only once it was left without `Lapped`,
            `Evicted` or `ChecksumError`.
        """
        return ReadSlot(self, timeout)

    def views(self, timeout: float | None = None) -> _native.Views:
        """Iterate over the slots in place: the fastest way through a channel, one slot at a time.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for each slot (in seconds); None waits for ever.

        Returns
        -------
        iterator of ndarray of shape slot_shape
            The slots themselves, read-only, in shared memory; `cursor` is the seq of the current one. Each is released
            when the next is asked for, or the loop is left. The iteration ends with the stream, and when
            another thread closes this consumer.

        Raises
        ------
        Lapped, Evicted
            Instead of the next slot, if the one before was overwritten meanwhile: discard what it showed.
        TimeoutExpired
        InvalidArgument
            If every slot has to be verified (`ChecksumPolicy.ENFORCED`), which `batches` and `slot` do.

        Examples
        --------
        >>> from labhub.datablock.producer import open_producer
        >>> with open_producer("adc", labhub.Schema.infer(dtype="i4", shape=1000)) as adc:
        ...     reader = open_consumer("adc", start="oldest")
        ...     count = adc.write_many(np.ones((3, 1000), "i4"))
        >>> for block in reader.views(timeout=1):
        ...     print(reader.cursor, block.sum())
        0 1000
        1 1000
        2 1000
        """
        if self._findings is not None:
            raise InvalidArgument(
                f"views() verifies no checksum, and {self.name!r} enforces them; use batches() or slot()"
            )
        if not self._in_place:
            self._in_place = [None] * self.capacity
        return self._native.views(self._in_place, self._view, self.mode == "latest", nanoseconds(timeout))

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
        ChecksumError
            If the slot is corrupt (`ChecksumPolicy.ENFORCED`); the next call goes on behind it.
        """
        self.in_hand.item = None
        timeout = nanoseconds_from_ms(timeout_ms)
        try:
            batch = self.next_batch(1, 1, None if timeout < 0 else timeout / 1e9, False)
            handle = None if batch is None else ConsumeHandle(batch)
            self.in_hand.item = None
            return handle
        except TimeoutExpired:
            return None
        except KeyboardInterrupt:
            self.take_back()
            raise

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
    def corrupt(self) -> int:
        """How many slots that it read did not match their checksum; neither received nor lost."""
        return self._corrupt

    @property
    def checksum_policy(self) -> ChecksumPolicy:
        """Whether slots carry a checksum."""
        return ChecksumPolicy(self._native.checksum_policy)

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

    @property
    def closed_here(self) -> bool:
        """Whether it was the calling thread that closed it."""
        return self._native.closed_here

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
        """Stop reading; a lossless consumer no longer holds the producer up. Twice is harmless.

        Any thread may call this. If another one waits in this consumer, its iteration ends at once, and any other call
        raises `ClosedError`; a copy that is under way is waited for. The ring's memory is given back as soon as no view
        of a slot is left.
        """
        self._native.close()
        self._views, self._in_place = {}, []  # an iteration keeps the old list
        self._finalize.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"cursor={self.cursor}, lag={self.lag}, lost={self.lost}"
        return f"DataBlockConsumer({self.name!r}, {self.schema!r}, mode={self.mode!r}, {state})"


STARTS = {"newest": _native.START_NEWEST, "oldest": _native.START_OLDEST}


def _start(start: object) -> int:
    match start:
        case str() if start in STARTS:
            return STARTS[start]
        case int() | np.integer() if 0 <= start <= LARGEST and not isinstance(start, bool):
            return int(start)
    raise InvalidArgument(f"start is 'newest', 'oldest' or a seq, not {quoted(start)}")


def open_consumer(
    name: str,
    schema: Schema | None = None,
    *,
    directory: str | None = None,
    mode: Mode = "stream",
    start: Start = "newest",
    instance_id: bytes = b"",
    shared_secret: int = 0,
    busy_poll: bool = False,
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
    busy_poll : bool
        Poll instead of sleeping; `Hub.consumer` says what that gives and costs.

    Returns
    -------
    DataBlockConsumer

    Raises
    ------
    ChannelNotFound, ChannelBusy, SchemaMismatch, SegmentTokenMismatch, SegmentAccessError, IncompatibleSegment
    InvalidName, InvalidArgument
    """
    if not isinstance(mode, str) or mode not in get_args(Mode):
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
        busy_poll=checked_flag("busy_poll", busy_poll),
    )
    return DataBlockConsumer(native, name, schema or Schema.raw(native.slot_nbytes), mode)
