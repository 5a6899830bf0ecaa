"""How the slots of a channel lie in a store: CF conventions, one group for each channel.

A group holds what `Batch.to_xarray` gives, so that ``xarray.open_zarr(store, group=channel)`` shows a recording as a
live channel shows its history. Beside it are what a replay needs of each slot, and the table of gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock import dates
from labhub.datablock.batch import Batch
from labhub.datablock.table import FIELD, GAP, SEQ, SLOT, UNITS, Column, along_time, layout_of, seq_of
from labhub.errors import InvalidArgument
from labhub.names import check_name
from labhub.recording.inside import LARGEST_FILE
from labhub.schema import TIME, Schema

CONVENTIONS = "CF-1.12"
CHUNK_NBYTES = 4 * 1024 * 1024
"""What a chunk of the widest array takes before compression (in bytes), or one slot."""
FEWEST_ROWS, MOST_ROWS = 4096, 65536
"""Rows of a chunk: not less of a narrow array, which would be many small files, and not more of any."""
OWN, OWN_PREFIXES = ("time", "seq", "nbytes", "epoch"), ("slot_", "gap_")
"""Arrays of a group that are not fields, unless they have the attribute `FIELD`."""
EPOCH_NS = {"units": "nanoseconds since 1970-01-01", "calendar": dates.CALENDAR}
"""CF's encoding of times: int64, UTC."""
FILES = ("zarr.json", "manifest.jsonl", "b3sums.txt")
"""Names in a store that no channel can have."""
LONGEST_NAME = 255
"""Most bytes of a name in a file system."""
SAME_UNITS = {
    "days": "d",
    "hours": "h",
    "minutes": "min",
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
}
"""Words by which some versions of xarray know a duration, and words for the same units by which they do not."""

REASONS = {"lapped": 1, "evicted": 2, "corrupt": 3, "restarted": 4}
"""Why slots are missing: overwritten before they were read, given up after a lossless reader was evicted, refused by
their checksum, or written while the recorder had to look for another incarnation of the channel."""


@dataclass(frozen=True, eq=False)
class Rows:
    """New rows of one array.

    Attributes
    ----------
    name : str
        The array.
    dims : tuple of str
        Names of its axes; it grows along the first.
    values : ndarray of shape (n_rows, ...)
        As they are stored.
    attrs : dict
        Its attributes.
    plain_attrs : dict or None
        What its attributes become for good with these rows, because a reader cannot decode them.
    """

    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    plain_attrs: dict[str, Any] | None = None


@dataclass(frozen=True)
class Gap:
    """Slots that a recording does not hold.

    Attributes
    ----------
    seq : int
        Seq of the first slot behind them, or that of a corrupt slot itself.
    timestamp_ns : int
        Its time (in nanoseconds since the epoch, UTC); that of the end of the recording if it never came.
    n_slots : int
        How many are missing.
    reason : str
        One of `REASONS`.
    """

    seq: int
    timestamp_ns: int
    n_slots: int
    reason: str


def rows_of(batch: Batch) -> Iterator[Rows]:
    """Return what a batch adds to each array of its channel's group.

    Raises
    ------
    InvalidArgument
        A text is none that a store can hold.
    """
    headers = batch.headers
    rows, time_ns, counts = along_time(batch.schema, batch.data, headers)
    per_sample = counts is not None
    also = {"coordinates": "seq" if per_sample else "seq nbytes epoch"}
    for column in layout_of(batch.schema).columns:
        yield _encoded(column, column.values(rows), also)
    yield Rows(TIME, (TIME,), np.ascontiguousarray(time_ns), EPOCH_NS)
    yield Rows(SEQ, (TIME,), np.ascontiguousarray(seq_of(headers, counts)))
    own = {"seq": headers["seq"], "time": headers["timestamp_ns"]} if per_sample else {}
    own |= {"nbytes": headers["nbytes"], "epoch": headers["epoch"]}
    dim, prefix = (SLOT, "slot_") if per_sample else (TIME, "")
    for name, values in own.items():
        yield Rows(f"{prefix}{name}", (dim,), np.ascontiguousarray(values), EPOCH_NS if name == "time" else {})


def field_of(name: str, attrs: Mapping[str, Any]) -> str | None:
    """Return the dotted name of the field that an array holds; None if it is one of the recording's own."""
    own = name in OWN or name.startswith(OWN_PREFIXES)
    found = attrs.get(FIELD, None if own else name)
    return None if found is None else str(found)


def group_attrs(schema: Schema, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a channel's group: the user's, and those of the recording, which win."""
    return {**layout_of(schema).attrs, **own}


def check_storable(channel: str, schema: Schema) -> None:
    """Raise unless a channel can be recorded.

    Raises
    ------
    InvalidArgument
        The channel's or a field's name, or the dtype of a field, has no place in a store.
    """
    check_name(channel)
    if channel in FILES:
        raise InvalidArgument(
            f"a channel named {channel!r} cannot be recorded: a store has a file of that name; give it another name"
        )
    if schema.slot_nbytes > LARGEST_FILE:
        raise InvalidArgument(
            f"a slot of {channel!r} has {schema.slot_nbytes} bytes, one in a store at most {LARGEST_FILE}; divide it"
        )
    for column in layout_of(schema).columns:
        _check_storable(channel, column)


def _check_storable(channel: str, column: Column) -> None:
    dtype, where = column.leaf.dtype, f"the field {column.field!r} of {channel!r}"
    if (length := len(column.name.encode())) > LONGEST_NAME:
        raise InvalidArgument(
            f"{where} cannot be recorded: its name has {length} bytes, a file name at most {LONGEST_NAME}; shorten it"
        )
    if dtype.itemsize == 0:
        raise InvalidArgument(f"{where} is {dtype}, which has no bytes; give it a length, as in 'U16'")
    if dtype.char in "gG":
        raise InvalidArgument(f"{where} is {dtype}, for which Zarr has no type; give it float64 or complex128 instead")
    if dates.is_time(dtype) and np.datetime_data(dtype)[0] == "generic":
        raise InvalidArgument(f"{where} is {dtype} without a unit; give it one, such as '{dtype.kind}8[us]'")


def gap_rows(gaps: list[Gap]) -> Iterator[Rows]:
    """Return what gaps add to the arrays of their table."""
    reasons = {"flag_values": list(REASONS.values()), "flag_meanings": " ".join(REASONS)}
    yield Rows("gap_seq", (GAP,), np.array([g.seq for g in gaps], "u8"))
    yield Rows("gap_time", (GAP,), np.array([g.timestamp_ns for g in gaps], "i8"), EPOCH_NS)
    yield Rows("gap_slots", (GAP,), np.array([g.n_slots for g in gaps], "u8"))
    yield Rows("gap_reason", (GAP,), np.array([REASONS[g.reason] for g in gaps], "i1"), reasons)


def slots_per_chunk(schema: Schema) -> int:
    """Return how many slots make one chunk of the widest array: a power of two."""
    rows_per_slot = samples_per_slot(schema)
    most = max(1, min(CHUNK_NBYTES // max(1, schema.slot_nbytes), MOST_ROWS // rows_per_slot))
    return 1 << int(math.log2(most))


def samples_per_slot(schema: Schema) -> int:
    """Return how many rows along ``time`` a whole slot gives."""
    return schema.shape[schema.dims.index(TIME)] if TIME in schema.dims else 1


def chunk_rows(rows: Rows, schema: Schema) -> int:
    """Return how many rows of an array make one chunk, so that whole chunks of all arrays end with the same slot."""
    if rows.dims[0] == GAP:
        return FEWEST_ROWS
    slots = slots_per_chunk(schema)
    aligned = slots * (1 if rows.dims[0] == SLOT else samples_per_slot(schema))
    narrow = rows.values[:1].nbytes * aligned < CHUNK_NBYTES // 16
    return max(aligned, FEWEST_ROWS) if narrow else aligned


def _encoded(column: Column, values: NDArray[Any], also: dict[str, Any]) -> Rows:
    """Return values as a data type of the Zarr specification; text of fixed length, say, is none."""
    dims = (TIME, *column.dims)
    renamed = column.name != column.field or column.name.startswith(OWN_PREFIXES)
    attrs = {**also, **({FIELD: column.field} if renamed else {})}
    if dates.is_time(values.dtype):
        return _encoded_times(column, values, attrs)
    attrs = _units(column.unit) | attrs
    match values.dtype.kind:
        case "U":
            values = _text(values, column.field)
        case "S" | "V":
            dims = (*dims, column.byte_dim)
            width = values.dtype.itemsize
            values = np.frombuffer(values.tobytes(), np.uint8).reshape(*values.shape, width)
    return Rows(column.name, dims, np.ascontiguousarray(values), attrs)


def _encoded_times(column: Column, values: NDArray[Any], attrs: dict[str, Any]) -> Rows:
    """Return dates or durations as integers in the unit of their dtype.

    CF says what they are, as long as xarray can show them all: before and after the years of nanoseconds it raises
    instead, for the whole group. An array with such a value, or of a unit that CF does not know, has its dtype as an
    attribute.
    """
    attrs = attrs | ({UNITS: column.unit} if column.unit else {})
    numbers, cf = dates.integers(values), dates.cf_units(values.dtype)
    plain = attrs | {dates.DTYPE: dates.name_of(values.dtype)}
    if cf is None:
        return Rows(column.name, (TIME, *column.dims), numbers, plain)
    fit = dates.all_fit_ns(numbers, values.dtype)
    return Rows(column.name, (TIME, *column.dims), numbers, cf | attrs, None if fit else plain)


def _units(unit: str) -> dict[str, str]:
    """Return the attributes for a unit; a word by which xarray would make dates or durations of numbers has a place of
    its own.
    """
    if "since" in unit.lower():
        return {UNITS: unit}
    if unit in SAME_UNITS:
        return {"units": SAME_UNITS[unit], UNITS: unit}
    return {"units": unit} if unit else {}


def _text(values: NDArray[Any], field: str) -> NDArray[Any]:
    """Return text of any length, as Zarr has it."""
    try:
        # NumPy 2.4 takes big-endian text for other characters.
        return values.astype(values.dtype.newbyteorder("="), copy=False).astype(np.dtypes.StringDType())
    except (UnicodeError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"the field {field!r} holds text that UTF-8 cannot hold ({error}); write bytes ('S') instead"
        ) from None


def slots_of(
    columns: Mapping[tuple[str, ...], NDArray[Any]],
    dtypes: Mapping[tuple[str, ...], np.dtype[Any]],
    schema: Schema,
    nbytes: NDArray[np.uint64],
) -> NDArray[Any]:
    """Put slots together again from what `rows_of` made of them.

    Parameters
    ----------
    columns : dict of tuple of str to ndarray
        The rows of each field, by its path.
    dtypes : dict of tuple of str to dtype
        In which unit those of a date or duration are stored; see `dtype_of`.
    schema : Schema
    nbytes : ndarray of shape (n_slots,)
        Committed bytes of each slot.

    Returns
    -------
    ndarray of shape (n_slots, *slot_shape)
        What lies behind a slot's committed length is zero.
    """
    n_slots, samples = len(nbytes), samples_per_slot(schema)
    axis = schema.dims.index(TIME) if TIME in schema.dims else None
    where: Any = ...
    shape = schema.shape
    if axis is not None:
        shape = (samples, *shape[:axis], *shape[axis + 1 :])
    if axis == 0:
        valid = np.minimum(nbytes.astype(np.int64) // (schema.slot_nbytes // samples), samples)
        where = np.arange(samples) < valid[:, None]
    data = np.zeros((n_slots, *shape), schema.dtype)
    for column in layout_of(schema).columns:
        path = column.leaf.path
        place = column.values(data)
        rows = _decoded(columns[path], place.dtype, dtypes.get(path))
        place[where] = rows if where is not ... else rows.reshape(place.shape)
    return data if axis is None else np.moveaxis(data, 1, axis + 1)


def dtype_of(attrs: Mapping[str, Any]) -> np.dtype[Any] | None:
    """Return the dtype of dates or durations that are stored as integers; None if these are numbers."""
    if dates.DTYPE in attrs:
        return np.dtype(str(attrs[dates.DTYPE]))
    word, since, _ = str(attrs.get("units", "")).partition(" since ")
    unit = next((unit for unit, known in dates.WORDS.items() if known == word), None)
    return None if unit is None else np.dtype(f"{'M' if since else 'm'}8[{unit}]")


def _decoded(values: NDArray[Any], dtype: np.dtype[Any], stored: np.dtype[Any] | None) -> NDArray[Any]:
    """Undo `_encoded`."""
    match dtype.kind:
        case "M" | "m":
            return np.ascontiguousarray(values).view(stored or dtype.newbyteorder("=")).astype(dtype)
        case "S" | "V":
            shape = values.shape[:-1]
            return np.frombuffer(np.ascontiguousarray(values).tobytes(), dtype, math.prod(shape)).reshape(shape)
        case "U":
            values = values.astype(dtype.newbyteorder("="))
    return values.astype(dtype)
