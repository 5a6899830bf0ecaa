"""How the slots of a channel lie in a store: CF conventions, one group for each channel.

A group holds what `Batch.to_xarray` gives, so that ``xarray.open_zarr(store, group=channel)`` shows a recording as a
live channel shows its history. Beside it are what a replay needs of each slot, and the table of gaps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import Batch, beside, columns_of
from labhub.errors import InvalidArgument
from labhub.schema import TIME, Schema

if TYPE_CHECKING:
    import xarray as xr

CONVENTIONS = "CF-1.12"
SLOT, GAP = "slot", "gap"
CHUNK_NBYTES = 4 * 1024 * 1024
"""What a chunk of the widest array takes before compression (in bytes), or one slot."""
FEWEST_ROWS, MOST_ROWS = 4096, 65536
"""Rows of a chunk: not less of a narrow array, which would be many small files, and not more of any."""
STORE_FILES = ("zarr.json", "manifest.jsonl", ".reserve")
"""Files of a store beside the groups of its channels."""
NAME_NBYTES = 255 - len("field__")
"""Longest name of a field that still fits a file name with what `_array_name` may add (in bytes)."""
OWN, OWN_PREFIXES = ("time", "seq", "nbytes", "epoch"), ("slot_", "gap_")
"""Arrays of a group that are not fields."""
FIELD = "labhub_field"
"""Attribute of an array that has another name than its field."""
EPOCH_NS = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"}
"""CF's encoding of times: int64, UTC."""
DURATION_NS = {"units": "nanoseconds", "dtype": "timedelta64[ns]"}
"""xarray's encoding of durations, for which CF has units only."""

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
    """

    name: str
    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: dict[str, Any] = field(default_factory=dict)


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


def check_storable(channel: str, schema: Schema) -> None:
    """Raise if a channel cannot be recorded.

    Raises
    ------
    InvalidArgument
        The message names the field, its dtype or name, and what to do.
    """
    if channel in STORE_FILES:
        raise InvalidArgument(f"a store has a file {channel!r} of its own; record the channel under another name")
    for name, column in columns_of(np.empty(0, schema.dtype)):
        dtype = column.dtype
        if dtype.kind == "O" or dtype.char in "gG" or (dtype.kind in "mM" and np.datetime_data(dtype)[0] == "generic"):
            raise InvalidArgument(f"field {name!r} is {dtype}, which Zarr cannot store; write it as another dtype")
        try:
            nbytes = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidArgument(f"the name of field {name!r} is no text that a file can have; rename it") from None
        if nbytes > NAME_NBYTES:
            raise InvalidArgument(
                f"the name of field {name[:20] + '...'!r} has {nbytes} bytes, a file's {NAME_NBYTES}; shorten it"
            )


def rows_of(batch: Batch) -> Iterator[Rows]:
    """Return what a batch adds to each array of its channel's group."""
    dataset = batch.to_xarray()
    headers = batch.headers
    per_sample = TIME in batch.schema.dims
    own = {"seq": headers["seq"], "time": headers["timestamp_ns"]} if per_sample else {}
    own |= {"nbytes": headers["nbytes"], "epoch": headers["epoch"]}
    dim, prefix = (SLOT, "slot_") if per_sample else (TIME, "")
    also = {"coordinates": "seq" if per_sample else "seq nbytes epoch"}
    taken = {*OWN, *dataset.variables}
    for (of_field, _), (shown, variable) in zip(columns_of(batch.data), dataset.data_vars.items(), strict=True):
        name = _array_name(str(shown), taken)
        renamed = {} if name == of_field else {FIELD: of_field}
        yield _encoded(name, _dims(variable), variable.values, {**variable.attrs, **also, **renamed})
    for shown, variable in dataset.coords.items():
        yield _encoded(str(shown), _dims(variable), variable.values, dict(variable.attrs))
    for name, values in own.items():
        yield Rows(f"{prefix}{name}", (dim,), np.ascontiguousarray(values), EPOCH_NS if name == "time" else {})


def field_of(name: str, attrs: Mapping[str, Any]) -> str | None:
    """Return the dotted name of the field that an array holds; None if it is one of the recording's own."""
    own = name in OWN or name.startswith(OWN_PREFIXES)
    found = attrs.get(FIELD, None if own else name)
    return None if found is None else str(found)


def _array_name(shown: str, taken: set[Any]) -> str:
    """Return a name for the array of a field: what can be a name in Zarr, and no array of the recording's own has."""
    name = re.sub(r"[/\\\0]", "_", shown)
    if name == "zarr.json" or name.startswith(("__", *OWN_PREFIXES)) or not name.strip("."):
        name = f"field_{name}"
    if name != shown or name in OWN:
        name = beside(name, taken)
        taken.add(name)
    return name


def _dims(variable: xr.DataArray) -> tuple[str, ...]:
    """Return the axes of a variable; a recording has its own ``slot`` and ``gap``."""
    return tuple(f"{dim}_" if dim in (SLOT, GAP) else str(dim) for dim in variable.dims)


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


def _encoded(name: str, dims: tuple[str, ...], values: NDArray[Any], attrs: dict[str, Any]) -> Rows:
    """Return values as a data type of the Zarr specification; text of fixed length, say, is none."""
    match values.dtype.kind:
        case "M":
            values, attrs = values.astype("datetime64[ns]").view("i8"), attrs | EPOCH_NS
        case "m":
            values, attrs = values.astype("timedelta64[ns]").view("i8"), attrs | DURATION_NS
        case "U":
            values = values.astype(np.dtypes.StringDType())
        case "S" | "V":
            dims = (*dims, f"{name}_byte")
            values = np.ascontiguousarray(values).view("u1").reshape(*values.shape, values.dtype.itemsize)
    return Rows(name, dims, np.ascontiguousarray(values), attrs)


def slots_of(columns: dict[str, NDArray[Any]], schema: Schema, nbytes: NDArray[np.uint64]) -> NDArray[Any]:
    """Put slots together again from what `rows_of` made of them.

    Parameters
    ----------
    columns : dict of str to ndarray
        The rows of each field.
    schema : Schema
    nbytes : ndarray of shape (n_slots,)
        Committed bytes of each slot.

    Returns
    -------
    ndarray of shape (n_slots, *slot_shape)
        What lies behind a slot's committed length is zero.
    """
    n_slots, samples = len(nbytes), samples_per_slot(schema)
    if TIME not in schema.dims:
        data = np.zeros((n_slots, *schema.shape), schema.dtype)
        _fill(data, columns, ...)
        return data
    axis = schema.dims.index(TIME)
    rest = tuple(n for k, n in enumerate(schema.shape) if k != axis)
    data = np.zeros((n_slots, samples, *rest), schema.dtype)
    valid = np.full(n_slots, samples)
    if axis == 0:
        valid = np.minimum(nbytes.astype(np.int64) // (schema.slot_nbytes // samples), samples)
    _fill(data, columns, np.arange(samples) < valid[:, None])
    return np.moveaxis(data, 1, axis + 1)


def _fill(data: NDArray[Any], columns: dict[str, NDArray[Any]], where: Any) -> None:
    """Store each column in its field, a nested one by its dotted name."""
    for name, column in columns_of(data):
        column[where] = _decoded(columns[name], column.dtype)


def _decoded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Undo `_encoded`."""
    match dtype.kind:
        case "M" | "m":
            return values.view(f"{dtype.kind}8[ns]").astype(dtype)
        case "S" | "V":
            return np.ascontiguousarray(values).view(dtype)[..., 0]
    return values.astype(dtype)
