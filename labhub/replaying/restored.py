"""Channels that labhub itself has turned into a table or dataset, turned back: same schema, same slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.table import FIELD
from labhub.errors import InvalidArgument
from labhub.recording.layout import field_of
from labhub.replaying.columns import LeftOut
from labhub.replaying.times import times_ns
from labhub.replaying.tracks import Track, slots_track
from labhub.schema import TIME, VALUE, Schema

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr

SCHEMA = "labhub_schema"
"""Where a table, or a group of a recording, keeps the JSON of its channel's schema."""
UNITS, DTYPE = "labhub_units", "labhub_dtype"
"""Attributes of a column: a unit that ``units`` cannot have, and the dtype of dates that are there as integers."""
BESIDE = (TIME, "seq", "nbytes", "epoch")
"""Columns that are no fields."""


class _Misfit(Exception):
    """What is there is not what the schema says: somebody has worked on it."""


@dataclass(frozen=True, eq=False)
class _Part:
    """A column or variable that holds a field; its unit is None where it says nothing of that."""

    name: str
    values: NDArray[Any]
    unit: str | None = None


Fields = dict[str, list[_Part]]
"""By the dotted name of the field. There can be two: ``x`` in the field ``p``, and a field named ``p.x``."""


def restored_table(table: pa.Table, name: str, words: list[str]) -> Track | None:
    """Return the channel that `Batch.to_arrow` has made a table of; None if it is no longer that, or never was."""
    from labhub.replaying.arrow import array_of_arrow, plain_times

    text = (table.schema.metadata or {}).get(SCHEMA.encode())
    if text is None or TIME not in table.column_names:
        return None
    try:
        schema = Schema.from_json(text.decode(errors="replace"))
        time_ns = times_ns(plain_times(table.column(TIME), _row), _row)
        own = {c: table.column(c).to_numpy() for c in ("seq", "nbytes") if c in table.column_names}
        fields: Fields = defaultdict(list)
        for k, column in enumerate(table.column_names):
            metadata = table.schema.field(k).metadata or {}
            marked = metadata.get(FIELD.encode())
            if marked is not None or column not in BESIDE:
                of_field = column if marked is None else marked.decode()
                values = array_of_arrow(table.column(k), column, _row, [])
                values = as_dates(values, metadata.get(DTYPE.encode(), b"").decode())
                fields[of_field].append(_Part(column, values))
        return _restored(name, schema, fields, time_ns, own)
    except (_Misfit, LeftOut, InvalidArgument) as reason:
        words.append(f"the table is no longer that of its channel ({reason}): each of its columns is a field")
        return None


def _row(k: int) -> str:
    return f"row {k}"


def restored_dataset(dataset: xr.Dataset, name: str, time_ns: NDArray[np.int64], words: list[str]) -> Track | None:
    """Return the channel of which a recording's group has become a dataset; None if it is no longer that, or never was.

    Parameters
    ----------
    dataset : Dataset
        With ``time`` as the first dim of all variables that have it.
    """
    if SCHEMA not in dataset.attrs:
        return None
    try:
        schema = Schema.from_json(str(dataset.attrs[SCHEMA]))
        own = {c: np.asarray(dataset[c].values) for c in ("seq", "nbytes") if _along_time(dataset, c)}
        variables = {str(k): v for k, v in dataset.variables.items() if v.dims[:1] == (TIME,)}
        fields: Fields = defaultdict(list)
        for shown, variable in variables.items():
            of_field = None if shown == TIME else field_of(shown, variable.attrs)
            if of_field is not None:
                values = as_dates(np.asarray(variable.values), str(variable.attrs.get(DTYPE, "")))
                unit = unit_of(variable.attrs) if variable.attrs else ""  # arithmetic may have dropped all of them
                fields[of_field].append(_Part(shown, values, unit))
        return _restored(name, schema, fields, time_ns, own)
    except (_Misfit, InvalidArgument) as reason:
        words.append(f"the dataset is no longer that of its channel ({reason}): each of its variables is a field")
        return None


def unit_of(attrs: Mapping[Any, Any]) -> str | None:
    """Return the unit of a column; None if nothing is said of it."""
    said = attrs.get(UNITS, attrs.get("units"))
    return None if said is None else str(said)


def as_dates(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return integers as the dates or durations that they stand for, if `dtype` is one of these."""
    if values.dtype.kind != "i" or not dtype.startswith(("datetime64", "timedelta64")):
        return values
    try:
        return values.astype(np.int64).view(np.dtype(dtype))
    except TypeError:  # a unit that NumPy does not know
        return values


def _along_time(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset.variables and dataset[name].dims == (TIME,)


def _restored(
    name: str, schema: Schema, fields: Fields, time_ns: NDArray[np.int64], own: Mapping[str, NDArray[Any]]
) -> Track:
    """Put slots together again from rows: one for each slot, or for each sample of slots that are blocks of them."""
    blocks = TIME in schema.dims
    n_rows = len(time_ns)
    axis = schema.dims.index(TIME) if blocks else 0
    rest = tuple(n for k, n in enumerate(schema.shape) if not blocks or k != axis)
    rows = np.zeros((n_rows, *rest), schema.dtype)
    units = dict(schema.units)
    for path, place, part in _matched(rows, fields):
        place[...] = _fitting(part.values, place.shape, place.dtype, part.name)
        top = path[0] if path else VALUE
        if part.unit is not None:
            units[top] = part.unit
    schema = replace(schema, units={f: u for f, u in units.items() if u})
    if not blocks:
        nbytes = own.get("nbytes", np.full(n_rows, schema.slot_nbytes)).astype(np.uint64)
        return slots_track(name, schema, rows, time_ns, np.minimum(nbytes, schema.slot_nbytes).astype(np.uint64))
    if "seq" not in own:
        raise _Misfit("seq, which tells what is one slot, is missing")
    return _joined(name, schema, axis, rows, time_ns, own["seq"])


def _matched(rows: NDArray[Any], fields: Fields) -> Iterator[tuple[tuple[str, ...], NDArray[Any], _Part]]:
    """Yield for each plain field its path, its place in rows, and what is there for it.

    Of two fields of one dotted name, the one that is not nested has the shorter name as a column.
    """
    places: dict[str, list[tuple[tuple[str, ...], NDArray[Any]]]] = defaultdict(list)
    for path, place in _places(rows):
        places[".".join(path) or VALUE].append((path, place))
    if lacking := sorted(places.keys() - fields.keys()):
        raise _Misfit(f"{', '.join(lacking)} is missing")
    if more := sorted(fields.keys() - places.keys()):
        raise _Misfit(f"{', '.join(more)} is new")
    for dotted, mine in places.items():
        parts = sorted(fields[dotted], key=lambda part: len(part.name))
        if len(mine) != len(parts):
            raise _Misfit(f"{dotted} is there {len(parts)} times")
        for (path, place), part in zip(sorted(mine, key=lambda found: len(found[0])), parts, strict=True):
            yield path, place, part


def _places(rows: NDArray[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], NDArray[Any]]]:
    """Yield the plain fields of rows, each with its path."""
    if rows.dtype.names is None:
        yield path, rows
    for name in rows.dtype.names or ():
        yield from _places(rows[name], (*path, name))


def _joined(
    name: str, schema: Schema, axis: int, rows: NDArray[Any], time_ns: NDArray[np.int64], seq: NDArray[Any]
) -> Track:
    """Make slots of samples: those of one seq are one slot, committed in part where there are fewer of them."""
    samples = schema.shape[axis]
    begins = np.flatnonzero(np.append(True, seq[1:] != seq[:-1])) if len(seq) else np.empty(0, np.int64)
    ends = np.append(begins[1:], len(seq)).astype(np.int64)
    starts = np.concatenate([np.arange(b, e, samples) for b, e in zip(begins, ends, strict=True)] or [begins])
    counts = np.diff(np.append(starts, len(seq)))
    if axis != 0 and (counts != samples).any():
        raise _Misfit("slots were cut along an axis that is not their first")
    data = np.zeros((len(starts), samples, *rows.shape[1:]), schema.dtype)
    data[np.arange(samples) < counts[:, None]] = rows
    nbytes = (counts * (schema.slot_nbytes // samples)).astype(np.uint64)
    return slots_track(name, schema, np.moveaxis(data, 1, axis + 1), time_ns[starts + counts - 1], nbytes)


def _fitting(values: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return values in the dtype of their field, or raise `_Misfit` if that would be other values."""
    if dtype.kind == "c" and values.dtype.kind != "c":
        values = _complex(values, dtype)
    if dtype.kind in "SV" and values.dtype == np.uint8 and values.shape == (*shape, dtype.itemsize):
        return np.ascontiguousarray(values).view(dtype)[..., 0]
    if values.dtype.kind in "OT":
        values = _of_objects(values, dtype, name)
    if values.shape != shape:
        raise _Misfit(f"{name} has the shape {values.shape[1:]}, not {shape[1:]}")
    if values.dtype.kind != dtype.kind and not (values.dtype.kind in "SV" and dtype.kind in "SV"):
        raise _Misfit(f"{name} is {values.dtype}, not {dtype}")
    if values.dtype.kind == "S" and dtype.kind == "V":
        values = values.astype(f"S{dtype.itemsize}").view(dtype) if values.dtype.itemsize <= dtype.itemsize else values
    found = values.astype(dtype)
    if found.dtype.newbyteorder("=") != values.dtype.newbyteorder("="):
        same = np.array_equal(found.astype(values.dtype), values, equal_nan=dtype.kind in "fcMm")
        if not same:
            raise _Misfit(f"{name} has values that are not of {dtype}")
    return found


def _complex(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Join real and imaginary part: the two fields of a record, or the two of a last axis."""
    names = values.dtype.names
    if names is not None and len(names) == 2:
        real, imag = values[names[0]], values[names[1]]
    elif names is None and values.ndim > 1 and values.shape[-1] == 2:
        real, imag = values[..., 0], values[..., 1]
    else:
        return values
    found = np.empty(real.shape, dtype)
    found.real, found.imag = real, imag
    return found


def _of_objects(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return text or bytes that were read as objects."""
    wanted = {"U": str, "S": bytes, "V": bytes}.get(dtype.kind)
    items = values.astype(object).ravel().tolist()
    if wanted is None or not all(isinstance(item, wanted) for item in items):
        raise _Misfit(f"{name} is no {dtype}")
    longest = max(map(len, items), default=0) or 1
    return np.array(items, f"{'U' if wanted is str else 'S'}{longest}").reshape(values.shape)
