"""What is in the slots, and the loops that verify it: the same for everybody.

A slot is an array of int64 in which the first word of each cache line counts. One by one, slot k is a view of one
source array at line ``k % ROWS``, so that its lines hold ``k % ROWS``, ``k % ROWS + 1``, ...: thousands of different
slots in hardly more memory than one. In batches, the first word of a slot is its number. A consumer reads one word of
each cache line of every slot and compares their sum.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, cycle, islice, repeat
from operator import getitem, itemgetter
from pathlib import Path
from struct import Struct
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.compiled import built
from bench.contender import Figures, Place, WrongSlot
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


def buffer(workload: Workload) -> Slot:
    """Return what a reader copies each batch to, as `pair.cpp` does: fresh memory would leave the caches."""
    return np.zeros((workload.batch, workload.nbytes // 8), np.int64)


def compiled_verifier() -> Path:
    """Compile what verifies batches, once in a session."""
    return built(Path(__file__).parent / "verify.cpp", "-shared", "-fPIC")


def verifier(place: Place) -> Callable[[int, int, int, int], int]:
    """Load it. It takes an address, slots, lines of a slot and the first sum; it returns how many slots are right."""
    function = ctypes.CDLL(str(place.verifier)).right_ones
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_uint64] * 3]
    function.restype = ctypes.c_uint64
    return cast(Callable[[int, int, int, int], int], function)


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
        if value != want:  # a loop of bytecodes that Python 3.11 specialises: faster than `map` with `operator.ne`
            raise WrongSlot(f"a slot that sums up to {value} came instead of {want}")
    return rate(workload.amount - 1, perf_counter() - began)


def measured_in_batches(batches: Iterable[Slot], workload: Workload, place: Place) -> Figures:
    """Verify every slot of a run that comes in contiguous arrays of shape (n_slots, words), and time it.

    Raises
    ------
    WrongSlot
    """
    lines = workload.nbytes // LINE
    rest = lines * (lines - 1) // 2
    right_ones = verifier(place)
    taken = first = address = 0
    began = 0.0
    known: Slot | None = None
    for batch in batches:
        n = len(batch)
        if batch is not known:  # to ask for an address takes a microsecond; most hand out the same array each time
            known, address = batch, batch.__array_interface__["data"][0]
        right = right_ones(address, n, lines, taken + rest)
        if right != n:
            raise WrongSlot(f"slot {taken + right} is not what was sent")
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
