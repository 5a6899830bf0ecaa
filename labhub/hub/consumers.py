"""The reader that a hub hands out: the reading end of a DataBlock, that can follow its channel."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from labhub.arguments import checked_flag
from labhub.bound import Bound, connect_line
from labhub.datablock.batch import Batch
from labhub.datablock.config import ChecksumPolicy, nanoseconds
from labhub.datablock.consumer import DataBlockConsumer, Mode, Start
from labhub.datablock.gaps import Gaps
from labhub.datablock.iteration import Batches, Datasets, InHand, batches_of
from labhub.datablock.quota import Quota
from labhub.datablock.reading import ReadSlot
from labhub.errors import ClosedError, StreamError, TimeoutExpired
from labhub.hub.lease import WITHDRAW_TIMEOUT, Lease
from labhub.schema import Schema

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from labhub.hub.hub import Hub

# How often a reader whose channel has ended asks the broker whether it is back (in seconds).
FOLLOW_INTERVAL = 0.2

Attached = tuple[DataBlockConsumer, Lease]
# Attaches anew, to another incarnation than the one of that instance id; None while there is none.
Reattach = Callable[[bytes], Attached | None]


class Consumer(Bound):
    """A reader of a channel. Made by `Hub.consumer`.

    Any thread may use it, one at a time. Leaving its ``with`` block and dropping the last reference close it.

    Attributes
    ----------
    channel : str
        What it reads.
    """

    def __init__(self, channel: str, attached: Attached, reattach: Reattach | None, hub: Hub) -> None:
        self.channel = channel
        self._hub = hub
        self._reattach = reattach
        self._lost_before = 0
        self._epochs_before = 0
        self._corrupt_before = 0
        self.in_hand = InHand()
        self._next_look = 0.0
        self._closing = threading.Event()
        self._take(attached)

    def batches(
        self,
        max_slots: int | None = None,
        min_slots: int = 1,
        timeout: float | None = None,
        *,
        until_gone: bool = False,
        total: int | None = None,
        progress: bool = False,
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
        total : int, optional
            End after so many slots.
        progress : bool
            Show a progress bar, with the number of lost slots; it closes with the iteration, interrupted or not.
        out : ndarray of shape (n_slots, ...), optional
            Read into this array over and over instead of new memory for each batch: for large slots at high rates, as
            it stays in the caches. `Batch.data` is a part of it, so each batch overwrites the one before.

        Returns
        -------
        Batches
            An iterator of `Batch`. It ends when the producer has closed the channel and everything is read; or never,
            when the consumer follows its channel: then `Batch.epoch` rises with each new producer.

        Raises
        ------
        TimeoutExpired
            While iterating, if fewer than `min_slots` came within `timeout`. Nothing is lost: those that came are kept
            for the next batch, and the iteration can go on.
        Evicted
            While iterating, if this lossless reader held the producer up for too long; the iteration can go on.
        ProducerGone
            While iterating, see `until_gone`.
        ChecksumError
            While iterating, for each corrupt slot (``checksum="enforced"``), behind the batch of those before it; the
            iteration can go on.
        ClosedError
            The reader was closed.

        Examples
        --------
        >>> with hub.producer("adc", like=0) as adc:
        ...     reader = hub.consumer("adc")
        ...     count = adc.write_many(range(10))
        >>> for batch in reader.batches(max_slots=4):
        ...     print(batch.seq, batch.data)
        [0 1 2 3] [0 1 2 3]
        [4 5 6 7] [4 5 6 7]
        [8 9] [8 9]
        """
        self._check_open()
        checked_flag("progress", progress)
        quota = Quota(total, progress, self.channel) if progress or total is not None else None
        return batches_of(self, max_slots, min_slots, timeout, until_gone, out, quota)

    def datasets(
        self,
        max_slots: int | None = None,
        min_slots: int = 1,
        timeout: float | None = None,
        *,
        until_gone: bool = False,
        total: int | None = None,
        progress: bool = False,
        gaps: Gaps = "leave",
    ) -> Datasets:
        """Iterate over the unread slots as `xarray.Dataset`; the other parameters and errors are those of `batches`.

        Parameters
        ----------
        gaps : {"leave", "nan"}
            What to do about slots that are missing between two datasets: ``"nan"`` puts them into the second one, as
            NaN at evenly spaced times, so that `xarray.concat` of all has a regular time axis; integer fields become
            floats. `GapFiller` has the details.

        Returns
        -------
        Datasets
            An iterator of `xarray.Dataset`; `Batch.to_xarray` says what is in one.

        Raises
        ------
        InvalidArgument
            If `gaps` is something else.

        Examples
        --------
        >>> pulse = hub.producer("bio.ppg", dtype="i2", shape=10, dims="time", sample_rate=100, units="adc")
        >>> with hub.consumer("bio.ppg") as reader:
        ...     count = pulse.write_many(np.zeros((6, 10), "i2"))
        ...     for ds in reader.datasets(min_slots=6, timeout=5, total=6):
        ...         print(dict(ds.sizes), ds.value.attrs["units"])
        {'time': 60} adc
        """
        batches = self.batches(max_slots, min_slots, timeout, until_gone=until_gone, total=total, progress=progress)
        return Datasets(batches, gaps)

    def _instead(self) -> str:
        hub = connect_line(self._hub.name, endpoint=self._hub.given is not None)
        return f"in the other process, open another one: {hub}.consumer({self.channel!r}); its batches can be sent"

    def __iter__(self) -> Batches:
        return self.batches()

    def __aiter__(self) -> Batches:
        return self.batches()

    def next_batch(
        self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool, out: NDArray[Any] | None = None
    ) -> Batch | None:
        """Wait for one batch; None at the end of the stream. `batches` is the friendlier form, with the same errors."""
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while not self._closing.is_set():
            try:
                batch = self._block.next_batch(max_slots, min_slots, left, until_gone, out)
            except TimeoutExpired:
                if left == timeout:
                    raise
                raise self._block.expired(timeout or 0.0, min_slots) from None
            except ClosedError:
                if self._closing.is_set():
                    return None
                raise
            if batch is not None:
                return batch
            if self._reattach is None:
                return None
            self._wait_for_return(self._reattach, timeout, deadline)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
        return None

    def put_back(self, item: Batch | StreamError) -> None:
        """Hand a batch, or an error, out once more, first: it was read for somebody who no longer waits."""
        self._block.put_back(item)

    def take_back(self) -> None:
        """Hand out once more what an interrupt has kept from getting to whom it was read for."""
        self._block.take_back()

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
        nanoseconds(timeout)
        return self._block.latest(timeout)

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
            Possibly empty. `complete` is False if the ring has overwritten slots that were asked for.

        Raises
        ------
        ChecksumError
            If one of them is corrupt (``checksum="enforced"``); later snapshots leave that slot out.
        """
        return self._block.snapshot(last, seconds)

    def to_xarray(self, last: int | None = None, seconds: float | None = None) -> xr.Dataset:
        """Return recent history as an `xarray.Dataset`; see `snapshot` and `Batch.to_xarray`."""
        return self.snapshot(last, seconds).to_xarray()

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
            `Evicted` or `ChecksumError`. It raises ``EOFError`` at the end of the stream, even if the consumer follows
            its channel.

        Examples
        --------
        >>> camera = hub.producer("camera", dtype="u2", shape=(512, 512))
        >>> with hub.consumer("camera") as viewer:
        ...     seq = camera.write(np.ones((512, 512), "u2"))
        ...     with viewer.slot(timeout=5) as slot:
        ...         brightness = slot.array.mean()
        >>> brightness
        np.float64(1.0)
        """
        return self._block.slot(timeout)

    def plot(self, *fields: str, **options: Any) -> Any:
        """Plot its channel live in a notebook, through a reader of the plot's own; as `Channel.plot`."""
        return self._hub[self.channel].plot(*fields, **options)

    def image(self, field: str | None = None, **options: Any) -> Any:
        """Show its channel's newest slot live in a notebook, through a reader of its own; as `Channel.image`."""
        return self._hub[self.channel].image(field, **options)

    def seek(self, start: Start) -> None:
        """Move the cursor of a lossy reader to ``"newest"``, ``"oldest"`` or a seq; nothing counts as lost.

        Raises
        ------
        InvalidArgument
            For a lossless reader: it reads every slot.
        """
        self._block.seek(start)

    @property
    def schema(self) -> Schema:
        """What one slot looks like."""
        return self._block.schema

    @property
    def mode(self) -> Mode:
        """``"stream"``, ``"latest"`` or ``"lossless"``."""
        return self._block.mode

    @property
    def capacity(self) -> int:
        """Number of slots of the ring."""
        return self._block.capacity

    @property
    def cursor(self) -> int:
        """Seq of the slot that is read next."""
        return self._block.cursor

    @property
    def head(self) -> int:
        """Seq of the slot that is committed next."""
        return self._block.head

    @property
    def lag(self) -> int:
        """How many slots the cursor is behind the head."""
        return self._block.lag

    @property
    def lost(self) -> int:
        """How many slots this reader lost so far, exactly; of all incarnations of the channel that it followed."""
        return self._lost_before + self._block.lost

    @property
    def corrupt(self) -> int:
        """How many slots that it read did not match their checksum: ``received + lost + corrupt == produced``."""
        return self._corrupt_before + self._block.corrupt

    @property
    def epoch(self) -> int:
        """Epoch of the producer now; it rises with each takeover and with each incarnation that was followed."""
        return self._epochs_before + self._block.epoch

    @property
    def instance_id(self) -> bytes:
        """Random 16 bytes that name this incarnation of the segment."""
        return self._block.instance_id

    @property
    def checksum_policy(self) -> ChecksumPolicy:
        """Whether slots carry a checksum."""
        return self._block.checksum_policy

    @property
    def ended(self) -> bool:
        """Whether the producer has closed the channel; there may still be slots to read."""
        return self._block.ended

    @property
    def producer_alive(self) -> bool:
        """Whether a living process holds the producer's lock."""
        return self._block.producer_alive

    @property
    def closed(self) -> bool:
        """Whether this reader was closed."""
        return self._block.closed

    @property
    def closed_here(self) -> bool:
        """Whether it was the calling thread that closed it."""
        return self._block.closed_here

    def close(self) -> None:
        """Stop reading; a lossless reader no longer holds the producer up. Twice is harmless.

        Any thread may call this. If another one waits in this reader, its iteration ends at once, as at the end of the
        stream, and any other call raises `ClosedError`.
        """
        if (confirmation := self.release()) is not None:
            wait([confirmation], WITHDRAW_TIMEOUT)

    def release(self) -> Future[None] | None:
        """Close it without waiting for the broker's confirmation, which is returned if there will be one."""
        self._closing.set()
        return self._lease.release()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ClosedError(f"the reader of {self.channel!r} was closed; ask the hub for a new one")

    def _take(self, attached: Attached) -> None:
        self._block, self._lease = attached
        self._block.in_hand = self.in_hand
        self._block.epochs_before = self._epochs_before
        weakref.finalize(self, self._lease.abandon)

    def _wait_for_return(self, reattach: Reattach, timeout: float | None, deadline: float | None) -> None:
        """Wait until the channel is back as another incarnation, and attach to that one."""
        ended = self._block
        while (attached := self._look(reattach, ended.instance_id)) is None:
            if self._closing.is_set():
                return
            left = FOLLOW_INTERVAL if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutExpired(
                    f"channel {self.channel!r} has ended and did not come back within {round(timeout or 0.0, 3):g} s"
                )
            self._closing.wait(min(left, FOLLOW_INTERVAL))
        # Each incarnation counts its epochs from 1 on, and readers are promised that they rise.
        self._epochs_before += ended.epoch + 1 - attached[0].epoch
        self._lost_before += ended.lost
        self._corrupt_before += ended.corrupt
        self._lease.close()
        self._take(attached)
        if self._closing.is_set():  # by another thread, which may have closed the old one
            self._lease.close()

    def _look(self, reattach: Reattach, ended: bytes) -> Attached | None:
        """Ask the broker whether there is another incarnation than `ended`, unless it was asked a moment ago."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + FOLLOW_INTERVAL
        return reattach(ended)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        from labhub.hub.rich import consumer_html

        return consumer_html(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"cursor={self.cursor}, lag={self.lag}, lost={self.lost}"
        return f"Consumer({self.channel!r}, {self.schema!r}, mode={self.mode!r}, {state})"
