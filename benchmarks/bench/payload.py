"""What is in the slots, and the loops that verify it: the same for everybody.

A slot is an array of int64 in which the first word of each cache line counts. One by one, slot k is a view of one
source array at line ``k % ROWS``, so that its lines hold ``k % ROWS``, ``k % ROWS + 1``, ...: thousands of different
slots in hardly more memory than one. In batches, the first word of a slot is its number. A consumer reads one word of
each cache line of every slot and compares their sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, count, cycle, islice, repeat
from operator import getitem, itemgetter
from struct import Struct
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contender import Figures, WrongSlot
from bench.workload import Workload

LINE = 64
"""Bytes of a cache line."""
ROWS = 4099
"""Different slots, one by one; a prime, so that no number of slots that a ring could skip leaves the order right."""
WORDS = LINE // 8
FIRST_WORDS = slice(None, None, WORDS)
WORD = Struct("=q")

Slot = NDArray[np.int64]


def sources(workload: Workload) -> list[Slot]:
    """Return the different slots to send one by one, in their order."""
    lines = np.zeros((workload.nbytes // LINE + ROWS, WORDS), np.int64)
    lines[:, 0] = range(len(lines))
    source, words = lines.reshape(-1), workload.nbytes // 8
    return [source[k * WORDS : k * WORDS + words] for k in range(ROWS)]


def rows(workload: Workload) -> Iterator[Slot]:
    """Return the slots to send one by one, `amount` of them."""
    return islice(cycle(sources(workload)), workload.amount)


def blocks(workload: Workload) -> Iterator[Slot]:
    """Yield the batches to send, arrays of shape (batch, words); each is the array before it with new numbers."""
    block = np.zeros((workload.batch, workload.nbytes // LINE, WORDS), np.int64)
    block[:, :, 0] = range(block.shape[1])
    block = block.reshape(workload.batch, -1)
    numbers = block[:, 0]
    numbers[:] = range(workload.batch)
    for _ in range(workload.amount // workload.batch):
        yield block
        numbers += workload.batch


def values(slots: Iterable[Slot], workload: Workload) -> Iterator[int]:
    """Read one word of each cache line of each slot: their sums."""
    if workload.nbytes == LINE:
        return map(np.ndarray.item, slots, repeat(0))
    return map(np.add.reduce, map(getitem, slots, repeat(FIRST_WORDS)))


def values_of_messages(messages: Iterable[Any], workload: Workload) -> Iterator[int]:
    """Read the same from buffers that are not arrays, such as bytes."""
    if workload.nbytes == LINE:
        return map(itemgetter(0), map(WORD.unpack_from, messages))
    return values(map(np.frombuffer, messages, repeat(np.int64)), workload)


def expected(workload: Workload) -> Iterator[int]:
    """Return what `values` must give, `amount` of it."""
    lines = workload.nbytes // LINE
    rest = lines * (lines - 1) // 2
    numbers: Iterable[int] = count(rest) if workload.batch > 1 else cycle([k * lines + rest for k in range(ROWS)])
    return islice(numbers, workload.amount)


def measured(found: Iterator[int], workload: Workload) -> Figures:
    """Verify every slot of a run, one by one, and time it from the first to the last.

    Raises
    ------
    WrongSlot
    """
    wanted = expected(workload)
    found = chain(found, repeat(-1))  # a run that ends too early is wrong as well
    if next(found) != next(wanted):
        raise WrongSlot("the first slot is not the first that was sent")
    began = perf_counter()
    for want, value in zip(wanted, found):  # noqa: B905  # endless on the right
        if value != want:
            raise WrongSlot(f"a slot that sums up to {value} came instead of {want}")
    return rate(workload.amount - 1, perf_counter() - began)


def measured_in_batches(batches: Iterable[Slot], workload: Workload) -> Figures:
    """Verify every slot of a run that comes in arrays of shape (n_slots, words), and time it.

    Raises
    ------
    WrongSlot
    """
    lines = workload.nbytes // LINE
    wanted = np.arange(workload.batch) + lines * (lines - 1) // 2
    taken = first = 0
    began = 0.0
    for batch in batches:
        n = len(batch)
        sums = batch[:, 0] if lines == 1 else np.add.reduce(batch[:, FIRST_WORDS], axis=1)
        if not (sums == wanted[:n]).all():
            raise WrongSlot(f"between slots {taken} and {taken + n} something else came than what was sent")
        wanted += n
        taken += n
        if first == 0:
            first, began = n, perf_counter()
        if taken >= workload.amount:
            break
    if taken != workload.amount:
        raise WrongSlot(f"{taken} slots came of {workload.amount}")
    return rate(taken - first, perf_counter() - began)


def rate(slots: int, seconds: float) -> Figures:
    """Return the figures of a stream: slots per second, and over how many seconds."""
    return {"per_second": slots / seconds, "seconds": seconds}
