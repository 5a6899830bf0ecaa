"""What people write themselves: a ring on `multiprocessing.shared_memory`, polled, or with semaphores.

No timestamps, no loss counts, no second look at a slot, and whoever dies takes the others along: less than what a
channel does, and so a hard peer. It relies on the store order of x86.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import BaseContext
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore
from typing import cast

import numpy as np

from bench.contender import Contender, Figures, Gate, Place
from bench.payload import LINE, Slot, blocks, buffer, measured, measured_in_batches, rows, values
from bench.workload import Workload

COUNTERS = 64
"""Cache lines before the slots: one for the head, and one for the tail of each consumer."""


class Ring:
    """Slots in shared memory, a head, and the tails of its consumers.

    Parameters
    ----------
    memory : SharedMemory
    workload : Workload
    """

    def __init__(self, memory: SharedMemory, workload: Workload) -> None:
        self.capacity = workload.slots_in_flight
        words = np.frombuffer(memory.buf, np.int64)
        step = LINE // 8
        # Memoryviews: half as long as numpy takes for one word or one small slot.
        self.head = memoryview(words[:1])
        self.tails = [memoryview(words[k * step : k * step + 1]) for k in range(1, 1 + workload.consumers)]
        payload = words[COUNTERS * step :][: self.capacity * workload.nbytes // 8]
        self.array = payload.reshape(self.capacity, -1)
        self.views = list(self.array)
        self.slots = [memoryview(view) for view in self.views]


@contextmanager
def attached(workload: Workload, place: Place, *, create: bool) -> Iterator[Ring]:
    """Create or attach to the ring of a run."""
    size = COUNTERS * LINE + workload.slots_in_flight * workload.nbytes
    memory = SharedMemory(place.name, create=create, size=size if create else 0)
    try:
        ring = Ring(memory, workload)
        if create:
            ring.array[:] = 0  # have its pages, as labhub has from the start
        yield ring
        vars(ring).clear()  # its views keep the memory open
    finally:
        with suppress(BufferError):  # after a failure, whose traceback keeps views
            memory.close()
        if create:
            memory.unlink()


class Handwritten(Contender):
    """One way to wait, one way to copy."""

    def supports(self, workload: Workload) -> bool:
        """Take part in streams of lossless readers."""
        return workload.kind == "stream" and not workload.lossy and workload.consumers < COUNTERS

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Write from the source."""
        with attached(workload, place, create=True) as r:
            gate.created()
            gate.start()
            self.write(r, workload, place)
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Read in place, or in copied batches."""
        gate.await_created()
        with attached(workload, place, create=False) as r:
            gate.start()
            if workload.batch > 1:
                figures = measured_in_batches(self.read_batches(r, workload, place), workload, place)
            else:
                figures = measured(values(self.read(r, workload, place), workload), workload)
            gate.finish()
            return figures

    @abstractmethod
    def write(self, r: Ring, workload: Workload, place: Place) -> None:
        """Write all slots."""

    @abstractmethod
    def read(self, r: Ring, workload: Workload, place: Place) -> Iterator[Slot]:
        """Yield all slots; each until the next is asked for."""

    def read_batches(self, r: Ring, workload: Workload, place: Place) -> Iterator[Slot]:
        """Yield all slots as copies of many."""
        raise NotImplementedError(f"{self.name} has no batches")


class Polling(Handwritten):
    """Look at a counter, and let others run while it stands."""

    name = "shared_memory, sched_yield"
    batches = True

    def write(self, r: Ring, workload: Workload, place: Place) -> None:
        """Wait for the slowest tail only when the last look at it does not allow another slot."""
        pause, slots, capacity, head, tails = os.sched_yield, r.slots, r.capacity, r.head, r.tails
        if workload.batch > 1:
            self._write_batches(r, workload)
            return
        limit = capacity
        for k, row in enumerate(rows(workload)):
            while k >= limit:
                limit = min([tail[0] for tail in tails]) + capacity
                if k >= limit:
                    pause()
            slots[k % capacity][:] = row
            head[0] = k + 1

    def _write_batches(self, r: Ring, workload: Workload) -> None:
        n, k = workload.batch, 0
        for block in blocks(workload):
            while min([tail[0] for tail in r.tails]) + r.capacity < k + n:
                os.sched_yield()
            at = k % r.capacity  # a whole number of batches fits the ring
            r.array[at : at + n] = block
            k += n
            r.head[0] = k

    def read(self, r: Ring, workload: Workload, place: Place) -> Iterator[Slot]:
        """Look at the head again only when everything up to the last look is read."""
        pause, views, capacity, head, tail = os.sched_yield, r.views, r.capacity, r.head, r.tails[place.consumer]
        known = 0
        for k in range(workload.amount):
            while k >= known:
                known = head[0]
                if k >= known:
                    pause()
            yield views[k % capacity]
            tail[0] = k + 1

    def read_batches(self, r: Ring, workload: Workload, place: Place) -> Iterator[Slot]:
        """Copy whole batches."""
        n, tail, batch = workload.batch, r.tails[place.consumer], buffer(workload)
        for k in range(0, workload.amount, n):
            while r.head[0] < k + n:
                os.sched_yield()
            at = k % r.capacity
            np.copyto(batch, r.array[at : at + n])
            tail[0] = k + n
            yield batch


class Semaphores(Handwritten):
    """Two POSIX semaphores for each consumer: nobody polls."""

    name = "shared_memory, semaphore"

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Make the semaphores: filled and free slots, for each consumer."""
        return [(context.Semaphore(0), context.Semaphore(workload.slots_in_flight)) for _ in range(workload.consumers)]

    def write(self, r: Ring, workload: Workload, place: Place) -> None:
        """Take a free slot from every consumer's count."""
        pairs = cast(list[tuple[Semaphore, Semaphore]], place.shared)
        slots, capacity = r.slots, r.capacity
        for k, row in enumerate(rows(workload)):
            for _, free in pairs:
                free.acquire()
            slots[k % capacity][:] = row
            for filled, _ in pairs:
                filled.release()

    def read(self, r: Ring, workload: Workload, place: Place) -> Iterator[Slot]:
        """Take a filled slot, give a free one."""
        filled, free = cast(list[tuple[Semaphore, Semaphore]], place.shared)[place.consumer]
        views, capacity = r.views, r.capacity
        for k in range(workload.amount):
            filled.acquire()
            yield views[k % capacity]
            free.release()
