"""A reader of a channel."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.arguments import LARGEST, checked_flag
from labhub.bound import Bound
from labhub.datablock import checksums
from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.checksums import Findings
from labhub.datablock.config import (
    ChecksumPolicy,
    nanoseconds,
    nanoseconds_from_ms,
)
from labhub.datablock.history import History
from labhub.datablock.iteration import Batches, Datasets, InHand, batches_of
from labhub.datablock.location import segment_directory
from labhub.datablock.reading import ConsumeHandle, ReadSlot
from labhub.errors import ChecksumError, InvalidArgument, StreamError, TimeoutExpired
from labhub.names import check_name
from labhub.schema import Schema
from labhub.words import quoted

if TYPE_CHECKING:
    import xarray as xr

Mode = Literal["stream", "latest", "lossless"]
Start = Literal["newest", "oldest"] | int


class DataBlockConsumer(Bound):
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
        self._in_place: list[NDArray[Any] | None] = []  # the same, by index, for `views`
        self._ready: list[Batch | StreamError] = []  # read, but not handed out yet
        self.in_hand = InHand()
        self.epochs_before = 0  # of earlier incarnations, for whom this one goes on
        self._untold = 0  # lost, but in no batch yet
        self._corrupt = 0
        self._findings: Findings | None = None  # of verifying every slot
        if native.checksum_policy == ChecksumPolicy.ENFORCED:
            self._findings = Findings(name, native.capacity)
        self._history = History(native, name, schema, self._findings)
        self._finalize = weakref.finalize(self, native.close)

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
            Most slots in one batch; what fits 32 MB unless given. More than the ring holds is as good as all of it.
        min_slots : int
            Wait until so many are unread (or the stream has ended).
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
            An iterator of `Batch`. It ends when the producer has closed the channel and everything is read.

        Raises
        ------
        TimeoutExpired
            While iterating, if nothing came within `timeout`; the iteration can go on.
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

    def next_batch(
        self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool, out: NDArray[Any] | None = None
    ) -> Batch | None:
        """Wait for one batch; None at the end of the stream. `batches` is the friendlier form, with the same errors."""
        if self._ready:
            return self._hand_out(max_slots)
        deadline = None if timeout is None else time.monotonic() + timeout
        left = nanoseconds(timeout)
        while True:
            unread = self._native.wait(min_slots, left, until_gone)
            if unread == _native.STREAM_ENDED:
                return None
            if unread == 0:
                raise self._expired(timeout)
            if self.mode == "latest":
                self._native.skip_to_newest()
                max_slots = 1
            batch = self._read(min(unread, max_slots), out)
            if batch is not None:
                return batch
            if deadline is not None:
                left = nanoseconds(max(0.0, deadline - time.monotonic()))

    def put_back(self, item: Batch | StreamError) -> None:
        """Hand a batch, or an error, out once more, first: it was read for somebody who no longer waits."""
        self._ready.insert(0, item)

    def take_back(self) -> None:
        """Hand out once more what an interrupt has kept from getting to whom it was read for."""
        if self.in_hand.item is not None:
            self.put_back(self.in_hand.item)

    def _hand_out(self, max_slots: int) -> Batch:
        item = self._ready[0]
        if isinstance(item, Batch) and len(item) > max_slots:  # it was read for somebody else
            item, self._ready[0] = item.split(max_slots)
            self.in_hand.item = item
            return item
        self.in_hand.item = item
        del self._ready[0]
        if isinstance(item, StreamError):
            raise item
        return item

    def _read(self, n: int, out: NDArray[Any] | None) -> Batch | None:
        """Copy `n` unread slots; None if there is no batch of them."""
        schema = self.schema
        self.in_hand.item = None
        data = np.empty((n, *schema.shape), schema.dtype) if out is None else out
        if n < len(data):
            data = data[:n]
        headers = np.empty(n, SLOT_HEADER)
        untold, corrupt, count = self._untold, self._corrupt, -1
        # Python looks for a Ctrl-C behind each call, the one that moves the cursor included.
        try:
            count, lost, seam = self._native.read(data, headers)
            self._untold += lost
            if count == 0:  # the producer was faster than the copy; what it cost is told with the next batch
                return None
            if self.epochs_before:
                headers["epoch"] += self.epochs_before
            if count < n:
                data, headers = data[:count], headers[:count]
            if seam or self._findings is not None:
                self._get_ready_in_parts(data, headers)
                return self._hand_out(n)
            batch = Batch(self.name, schema, data, headers, self._untold)
            self._untold = 0
            self.in_hand.item = batch
            return batch
        except KeyboardInterrupt:
            if self.in_hand.item is None:
                if count < 0:
                    count, lost = self._native.last_read
                    headers["epoch"] += self.epochs_before
                self._untold, self._corrupt = untold + lost, corrupt
                self._ready.clear()
                self._get_ready_in_parts(data[:count], headers[:count])
            raise

    def _get_ready_in_parts(self, data: NDArray[Any], headers: NDArray[np.void]) -> None:
        """Let slots be handed out around those that are corrupt."""
        first = 0
        if self._findings is not None:
            # The copy was validated: a slot that does not match its checksum was not overwritten, but is corrupt.
            for bad in checksums.mismatches(headers, data):
                self._get_ready(data[first:bad], headers[first:bad])
                self._ready.append(self._found_corrupt(headers[bad]))
                first = bad + 1
        self._get_ready(data[first:], headers[first:])

    def _get_ready(self, data: NDArray[Any], headers: NDArray[np.void]) -> None:
        """Let slots be handed out, one batch for each epoch; the first one tells what was lost."""
        if not len(data):
            return
        self._ready += Batch(self.name, self.schema, data, headers, self._untold).by_epoch()
        self._untold = 0

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

    def _found_corrupt(self, header: np.void) -> ChecksumError:
        """Count the slot that was just read as corrupt; the error to raise."""
        assert self._findings is not None  # nobody else verifies
        self._corrupt += 1
        return self._findings.add(header)

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
        ChecksumError
            If the slot is corrupt (``checksum="enforced"``); the next call passes over it.
        """
        batch = self._history.latest(timeout)
        if batch is None:
            raise self._expired(timeout or 0.0)
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
            Possibly empty. `lost` is 0: nothing is missing that was asked for and still there.

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
            when the next is asked for, or the loop is left. The iteration ends with the stream.

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
