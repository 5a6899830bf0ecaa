"""A track: the slots of one channel that can be replayed, block by block, wherever they come from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument
from labhub.names import check_name
from labhub.replaying.columns import Column, Found
from labhub.schema import VALUE, Schema

BLOCK_SLOTS = 4096
BLOCK_NBYTES = 8 * 1024 * 1024
"""What is converted at a time: so many slots of at most so many bytes, but at least one."""
MOST_NOTES_NBYTES = 16 * 1024
MOST_WORDS, LONGEST_WORDS = 20, 300
"""How many notes of a source become attributes of the channel (in bytes of JSON), and how many lines of what length."""
NOTES = "replay_notes"
"""Attribute of a channel that says what its source had and the channel has not."""


@dataclass(frozen=True, eq=False)
class Block:
    """Slots that follow each other.

    Attributes
    ----------
    data : ndarray of shape (n_slots, *slot_shape)
    timestamp_ns : ndarray of shape (n_slots,)
        Original time of each (in nanoseconds since the epoch, UTC).
    nbytes : ndarray of shape (n_slots,)
        Committed bytes of each.
    """

    data: NDArray[Any]
    timestamp_ns: NDArray[np.int64]
    nbytes: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Track:
    """One channel that can be replayed.

    Attributes
    ----------
    channel : str
        Its name.
    schema : Schema
    n_slots : int
    begins_ns, ends_ns : int
        Time of its first and its last slot (in nanoseconds since the epoch, UTC).
    blocks : callable
        Reads it from the beginning; an iterator of `Block`.
    words : tuple of str
        What the source had and the channel has not, or has as another type: a line for each.
    """

    channel: str
    schema: Schema
    n_slots: int
    begins_ns: int
    ends_ns: int
    blocks: Callable[[], Iterator[Block]]
    words: tuple[str, ...] = ()


def track_of(name: str, found: Found, time_ns: NDArray[np.int64], *, plain: bool = False) -> Track:
    """Make a track of columns: a field for each, or one plain array if `plain` says that there is one only.

    Raises
    ------
    InvalidArgument
        There are no columns or no rows, or they cannot be a slot.
    """
    check_name(name)
    if not len(time_ns):
        raise InvalidArgument(f"there is nothing to replay on {name!r}: no rows")
    if not found.columns:
        why = "; ".join(found.words) or "it has none besides 'time'"
        raise InvalidArgument(f"there is no column that could be replayed on {name!r}: {why}")
    schema = _plain_schema(found) if plain else _record_schema(found)
    columns = tuple(found.columns)

    def read(rows: Any, n: int) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        data = _slots(columns, schema, rows, n)
        return data, np.full(n, schema.slot_nbytes, np.uint64)

    return _ordered(name, schema, time_ns, read, found.words)


def slots_track(
    name: str,
    schema: Schema,
    data: NDArray[Any],
    time_ns: NDArray[np.int64],
    nbytes: NDArray[np.uint64],
    words: Sequence[str] = (),
) -> Track:
    """Make a track of slots that are in memory, shape (n_slots, *slot_shape), with their times and committed bytes."""
    check_name(name)
    if not len(time_ns):
        raise InvalidArgument(f"there is nothing to replay on {name!r}: no rows")
    return _ordered(name, schema, time_ns, lambda rows, _: (data[rows], nbytes[rows]), words)


def _ordered(
    name: str,
    schema: Schema,
    time_ns: NDArray[np.int64],
    read: Callable[[Any, int], tuple[NDArray[Any], NDArray[np.uint64]]],
    words: Sequence[str],
) -> Track:
    """Make a track of slots in the order of their times; those of one time stay in the order of the source."""
    order = None if (time_ns[1:] >= time_ns[:-1]).all() else np.argsort(time_ns, kind="stable")
    n_slots = len(time_ns)
    step = max(1, min(BLOCK_SLOTS, BLOCK_NBYTES // schema.slot_nbytes))

    def blocks() -> Iterator[Block]:
        for k in range(0, n_slots, step):
            rows = slice(k, min(k + step, n_slots)) if order is None else order[k : k + step]
            times = time_ns[rows]
            data, nbytes = read(rows, len(times))
            yield Block(data, times, nbytes)

    return Track(name, schema, n_slots, int(time_ns.min()), int(time_ns.max()), blocks, tuple(words))


def _plain_schema(found: Found) -> Schema:
    (column,) = found.columns
    units = {VALUE: column.unit} if column.unit else {}
    return Schema(column.dtype, column.shape, column.dims, units, attrs=_attrs(found))


def _record_schema(found: Found) -> Schema:
    """Return a record: the axes that all columns begin with are the slot's, others their field's."""
    levels = zip(*(column.dims for column in found.columns), strict=False)
    dims = tuple(names[0] for names in itertools.takewhile(lambda names: len(set(names)) == 1, levels))
    shape = found.columns[0].shape[: len(dims)]
    fields = [(c.name, c.dtype, c.shape[len(dims) :]) for c in found.columns]
    for column in found.columns:
        if column.dims[len(dims) :]:
            found.attrs.setdefault(f"{column.name}.dims", list(column.dims[len(dims) :]))
    try:
        dtype = np.dtype(fields)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"the columns cannot be the fields of a record: {error}") from None
    return Schema(dtype, shape, dims, {c.name: c.unit for c in found.columns if c.unit}, attrs=_attrs(found))


def _attrs(found: Found) -> dict[str, Any]:
    """Return the notes, the shortest first to be kept: all of them travel in one message to the broker."""
    nbytes = {key: len(json.dumps([key, value]).encode()) for key, value in found.attrs.items()}
    kept, free = set(), MOST_NOTES_NBYTES
    for key in sorted(nbytes, key=lambda key: nbytes[key]):
        if nbytes[key] <= free:
            kept.add(key)
            free -= nbytes[key]
    found.words += [f"note {key!r} is left out: it is too long" for key in found.attrs if key not in kept]
    words = [*found.words[:MOST_WORDS], *([f"and {n} more"] if (n := len(found.words) - MOST_WORDS) > 0 else [])]
    attrs = {key: value for key, value in found.attrs.items() if key in kept}
    return {**attrs, **({NOTES: [word[:LONGEST_WORDS] for word in words]} if words else {})}


def _slots(columns: tuple[Column, ...], schema: Schema, rows: Any, n: int) -> NDArray[Any]:
    if schema.dtype.names is None or (len(columns) == 1 and columns[0].dtype == schema.dtype):
        return columns[0].read(rows)
    data = np.zeros((n, *schema.shape), schema.dtype)
    for column in columns:
        data[column.name] = column.read(rows)
    return data
