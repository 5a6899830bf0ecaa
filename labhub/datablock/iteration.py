"""Iterators over batches, for ``for`` and ``async for`` alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from threading import Event
from typing import TYPE_CHECKING

from labhub.datablock.batch import Batch
from labhub.errors import TimeoutExpired

if TYPE_CHECKING:
    import xarray as xr

    from labhub.datablock.consumer import DataBlockConsumer

ASYNC_SLICE = 0.1
"""How long (in seconds) a cancelled ``async for`` may still sit in the executor."""


class Batches(Iterator[Batch], AsyncIterator[Batch]):
    """Iterator of `Batch`, made by `DataBlockConsumer.batches`. It ends with the stream."""

    def __init__(
        self, consumer: DataBlockConsumer, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool
    ) -> None:
        self._consumer = consumer
        self._max_slots = max_slots
        self._min_slots = min_slots
        self._timeout = timeout
        self._until_gone = until_gone

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        batch = self._consumer.next_batch(self._max_slots, self._min_slots, self._timeout, self._until_gone)
        if batch is None:
            raise StopIteration
        return batch

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> Batch:
        """Wait in an executor thread; a cancelled wait leaves nothing behind and loses no batch."""
        stop = Event()
        waiting = asyncio.get_running_loop().run_in_executor(None, self._wait, stop)
        try:
            batch = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            stop.set()
            late = await _outcome(waiting)
            if late is not None:
                self._consumer.put_back(late)
            raise
        if batch is None:
            raise StopAsyncIteration
        return batch

    def _wait(self, stop: Event) -> Batch | None:
        """Wait in slices, so that a cancelled task does not leave a thread behind that waits for ever."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            left = ASYNC_SLICE if deadline is None else min(ASYNC_SLICE, max(0.0, deadline - time.monotonic()))
            try:
                return self._consumer.next_batch(self._max_slots, self._min_slots, left, self._until_gone)
            except TimeoutExpired:
                if stop.is_set():
                    return None
                if deadline is not None and time.monotonic() >= deadline:
                    raise


async def _outcome(waiting: asyncio.Future[Batch | None]) -> Batch | None:
    """Return what a cancelled wait still brought, if anything."""
    try:
        return await waiting
    except Exception:  # noqa: BLE001  the task is being cancelled; its consumer will raise this again
        return None


class Datasets(Iterator["xr.Dataset"], AsyncIterator["xr.Dataset"]):
    """Iterator of `xarray.Dataset`, made by `DataBlockConsumer.datasets`. It ends with the stream."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Datasets:
        return self

    def __next__(self) -> xr.Dataset:
        return next(self._batches).to_xarray()

    def __aiter__(self) -> Datasets:
        return self

    async def __anext__(self) -> xr.Dataset:
        return (await anext(self._batches)).to_xarray()
