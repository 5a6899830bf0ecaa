"""Iterators over batches, for ``for`` and ``async for`` alike."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from threading import Event, current_thread
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from labhub.arguments import checked_flag
from labhub.bound import Bound
from labhub.datablock.batch import Batch
from labhub.datablock.config import checked_count, nanoseconds
from labhub.datablock.gaps import GapFiller, Gaps
from labhub.datablock.quota import Quota
from labhub.ending import exiting
from labhub.errors import ClosedError, InvalidArgument, StreamError, TimeoutExpired
from labhub.schema import Schema
from labhub.words import size

if TYPE_CHECKING:
    import xarray as xr

ASYNC_SLICE = 0.05
"""How long (in seconds) a cancelled ``async for`` may still sit in the executor."""


MAX_BATCH_NBYTES = 32 * 1024 * 1024
"""A batch without `max_slots` takes at most this much memory (in bytes), or one slot."""


class InHand:
    """A batch or an error that was taken for a call that has not returned it yet: a Ctrl-C can come between.

    Attributes
    ----------
    item : Batch, StreamError or None
        Whoever hands it on sets this to None, as the last thing before it returns.
    """

    __slots__ = ("item",)

    def __init__(self) -> None:
        self.item: Batch | StreamError | None = None


class BatchSource(Protocol):
    """What batches come from: a DataBlock, or something that follows one channel from DataBlock to DataBlock."""

    in_hand: InHand

    @property
    def mode(self) -> str:
        """``"stream"``, ``"latest"`` or ``"lossless"``."""

    @property
    def capacity(self) -> int:
        """Number of slots of the ring."""

    @property
    def schema(self) -> Schema:
        """What one slot looks like."""

    @property
    def closed_here(self) -> bool:
        """Whether it was the calling thread that closed it."""

    def next_batch(
        self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool, out: NDArray[Any] | None = None
    ) -> Batch | None:
        """Wait for one batch; None at the end of the stream."""

    def put_back(self, item: Batch | StreamError) -> None:
        """Hand a batch, or an error, out once more, first."""

    def take_back(self) -> None:
        """Do so with what is in hand."""


def batches_of(
    source: BatchSource,
    max_slots: int | None,
    min_slots: int,
    timeout: float | None,
    until_gone: bool,
    out: NDArray[Any] | None = None,
    quota: Quota | None = None,
) -> Batches:
    """Check what `batches` was asked for, and make the iterator.

    Raises
    ------
    InvalidArgument
        If a count is not a whole number of at least 1, `min_slots` is more than `max_slots` or than can be waited for,
        the timeout is bad, or `out` is not an array to read into.
    """
    limit = max(1, MAX_BATCH_NBYTES // source.schema.slot_nbytes) if out is None else _room(out, source.schema)
    most = limit if max_slots is None else checked_count("max_slots", max_slots)
    if out is not None and most > limit:
        raise InvalidArgument(f"max_slots={most} is more than the {limit} that `out` has room for")
    least = checked_count("min_slots", min_slots)
    if max_slots is not None and least > most:
        raise InvalidArgument(f"min_slots={least} is more than max_slots={most}")
    checked_flag("until_gone", until_gone)
    nanoseconds(timeout)  # refuse a bad one now, not while iterating
    _check_reachable(source, least)
    if least > limit and out is not None:
        raise InvalidArgument(f"min_slots={least} is more than the {limit} that `out` has room for")
    return Batches(source, max(most, least), least, timeout, until_gone, out, quota)


def _check_reachable(source: BatchSource, min_slots: int) -> None:
    """Refuse to wait for more slots than can ever be there."""
    if min_slots == 1 or min_slots <= source.capacity:
        return
    if source.mode == "latest":
        raise InvalidArgument(
            f"min_slots={min_slots} is more than the {source.capacity} slots of the ring, and a reader in mode "
            "'latest' gathers no slots, as it hands out the newest one only; use mode 'stream' or fewer slots"
        )
    needed, memory = min_slots * source.schema.slot_nbytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise InvalidArgument(
            f"min_slots={min_slots} would take {size(needed)} of memory, and this machine has {size(memory)}; "
            "ask for fewer slots at once"
        )


def _room(out: NDArray[Any], schema: Schema) -> int:
    """Return how many slots fit an array that batches shall be read into."""
    fits = isinstance(out, np.ndarray) and out.dtype == schema.dtype and out.shape[1:] == schema.shape and out.size > 0
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        wanted = f"{schema.dtype} of shape (n_slots, *{schema.shape})"
        raise InvalidArgument(f"out must be a writable C-contiguous array of {wanted}, not {found}")
    return len(out)


class Batches(Bound, Iterator[Batch], AsyncIterator[Batch]):
    """Iterator of `Batch`, made by `DataBlockConsumer.batches`.

    It ends with the stream, and when another thread closes its consumer. To go on after a close of one's own raises
    `ClosedError`.
    """

    def __init__(
        self,
        source: BatchSource,
        max_slots: int,
        min_slots: int,
        timeout: float | None,
        until_gone: bool,
        out: NDArray[Any] | None = None,
        quota: Quota | None = None,
    ) -> None:
        self._source = source
        self._max_slots = max_slots
        self._min_slots = min_slots
        self._timeout = timeout
        self._until_gone = until_gone
        self._out = out
        self._quota = quota
        self._left: int | None = None  # of the quota, before the batch that is in hand
        self.in_hand = source.in_hand

    def _instead(self) -> str:
        return "send the batches that it yields, or let the other process open a consumer of its own"

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        self.in_hand.item = None
        try:
            batch = self.fetch()
            if batch is not None:
                self.in_hand.item = None
                return batch
        except KeyboardInterrupt:
            self.take_back()
            raise
        raise StopIteration

    def fetch(self) -> Batch | None:
        """Return the next batch, which stays in hand; None at the end. The hand must be empty."""
        try:
            if self._quota is not None:
                return self._noted(self._read(self._timeout))
            return self._source.next_batch(self._max_slots, self._min_slots, self._timeout, self._until_gone, self._out)
        except ClosedError:
            if self._source.closed_here:
                raise
            return None

    def take_back(self) -> None:
        """Hand out once more what is in hand."""
        if self._quota is not None and self.in_hand.item is not None:
            self._quota.left = self._left
        self._source.take_back()

    def _read(self, timeout: float | None) -> Batch | None:
        """Wait for one batch; None at the end of the stream, or of the quota."""
        quota = self._quota
        if quota is None:
            return self._source.next_batch(self._max_slots, self._min_slots, timeout, self._until_gone, self._out)
        if quota.spent:
            return None
        self._left = quota.left
        most, least = quota.limit(self._max_slots), quota.limit(self._min_slots)
        try:
            return self._source.next_batch(most, least, timeout, self._until_gone, self._out)
        except (KeyboardInterrupt, ClosedError):
            quota.close()
            raise

    def _noted(self, batch: Batch | None) -> Batch | None:
        """Count a batch that is about to be handed out."""
        if self._quota is not None:
            if batch is None:
                self._quota.close()
            else:
                self._quota.note(batch)
        return batch

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> Batch:
        """Wait in an executor thread; a cancelled wait leaves nothing behind and loses no batch."""
        if exiting.is_set():
            await _last_moments()
            raise StopAsyncIteration
        stop = Event()
        waiting = asyncio.get_running_loop().run_in_executor(None, self._wait, stop)
        try:
            batch = self._noted(await asyncio.shield(waiting))
        except asyncio.CancelledError:
            stop.set()
            late = await _outcome(waiting)
            if late is not None:
                self._source.put_back(late)
            raise
        finally:
            self.in_hand.item = None
        if batch is None:
            await _last_moments()
            raise StopAsyncIteration
        return batch

    def _wait(self, stop: Event) -> Batch | None:
        """Wait in slices, so that a cancelled task does not leave a thread behind that waits for ever."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            left = ASYNC_SLICE if deadline is None else min(ASYNC_SLICE, max(0.0, deadline - time.monotonic()))
            try:
                return self._read(left)
            except ClosedError:
                if self._source.closed_here:
                    raise
                return None
            except TimeoutExpired as error:
                if stop.is_set() or exiting.is_set():
                    return None
                if deadline is not None and time.monotonic() >= deadline:  # its words are about the last slice
                    words = str(error).replace(f"within {left:g} s", f"within {self._timeout:g} s")
                    raise TimeoutExpired(words) from None


async def _last_moments() -> None:
    """Keep a daemon thread here when the interpreter ends: its loop could not shut its executor down any more."""
    if exiting.is_set() and current_thread().daemon:
        await asyncio.get_running_loop().create_future()


async def _outcome(waiting: asyncio.Future[Batch | None]) -> Batch | StreamError | None:
    """Return what a cancelled wait still brought, if anything."""
    try:
        return await waiting
    except StreamError as error:  # told once, so somebody must be told
        return error
    except Exception:  # noqa: BLE001  the task is being cancelled; its consumer will raise this again
        return None


class Datasets(Bound, Iterator["xr.Dataset"], AsyncIterator["xr.Dataset"]):
    """Iterator of `xarray.Dataset`, made by `DataBlockConsumer.datasets`. It ends with the stream."""

    def __init__(self, batches: Batches, gaps: Gaps = "leave") -> None:
        if not isinstance(gaps, str) or gaps not in get_args(Gaps):
            raise InvalidArgument(f"gaps is 'leave' or 'nan', not {gaps!r}")
        self._batches = batches
        self._filler = GapFiller() if gaps == "nan" else None
        self._convert = Batch.to_xarray if self._filler is None else self._filler.fill

    def _instead(self) -> str:
        return "send the datasets that it yields, or let the other process open a consumer of its own"

    def __iter__(self) -> Datasets:
        return self

    def __next__(self) -> xr.Dataset:
        self._batches.in_hand.item = None
        before = None if self._filler is None else self._filler.last
        try:
            batch = self._batches.fetch()
            if batch is not None:
                dataset = self._convert(batch)
                self._batches.in_hand.item = None
                return dataset
        except KeyboardInterrupt:
            if self._filler is not None:
                self._filler.last = before
            self._batches.take_back()
            raise
        raise StopIteration

    def __aiter__(self) -> Datasets:
        return self

    async def __anext__(self) -> xr.Dataset:
        return self._convert(await anext(self._batches))
