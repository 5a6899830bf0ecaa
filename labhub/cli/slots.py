"""Slots as lines: for people with their arrays in short, for scripts as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.datablock.table import layout_of
from labhub.errors import InvalidArgument
from labhub.words import did_you_mean, instant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labhub.datablock.batch import Batch
    from labhub.datablock.table import Column
    from labhub.schema import Schema

MOST_ELEMENTS = 16
"""An array with more elements is shown by its shape, least, mean and greatest value."""


def chosen_fields(schema: Schema, wanted: str) -> tuple[str, ...]:
    """Return the fields named in ``a,b``; all if that is empty.

    Raises
    ------
    InvalidArgument
        The schema has no such field; the message names the closest ones.
    """
    known = list(columns(schema))
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InvalidArgument(f"a slot has no field {name!r}; {did_you_mean(name, known, repr)}")
    return tuple(names or known)


def columns(schema: Schema) -> dict[str, Column]:
    """Return the plain fields of a slot by their dotted names; of two with one name, each by that of its column."""
    found = layout_of(schema).columns
    counts = Counter(column.field for column in found)
    return {column.field if counts[column.field] == 1 else column.name: column for column in found}


def records(batch: Batch, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield one record for each slot, of plain JSON values (but for numbers that are not finite)."""
    known = columns(batch.schema)
    data = {name: known[name].values(batch.data) for name in fields}
    for k in range(len(batch)):
        record = {
            "time": instant(int(batch.timestamp_ns[k])),
            "timestamp_ns": int(batch.timestamp_ns[k]),
            "seq": int(batch.seq[k]),
            "epoch": int(batch.headers["epoch"][k]),
            "values": {name: value_of(np.asarray(data[name][k])) for name in fields},
        }
        if batch.nbytes[k] != batch.schema.slot_nbytes:
            record["nbytes"] = int(batch.nbytes[k])
        yield record


def value_of(array: NDArray[Any]) -> Any:
    """Return an array as a JSON value: itself, or what there is to say in short about a large one."""
    if array.size <= MOST_ELEMENTS:
        if array.dtype.kind in "Mm":
            array = array.astype(str)
        return _plain(array.tolist())
    summary: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.kind in "biuf":
        valid = array[~np.isnan(array)] if array.dtype.kind == "f" else array
        names = ("min", "mean", "max")
        if valid.size:
            with np.errstate(all="ignore"):  # a mean may overflow; it is shown as what it is then
                found = (valid.min(), valid.mean(dtype=np.float64), valid.max())
            summary |= dict(zip(names, (float(f) if f.dtype.kind == "f" else int(f) for f in found), strict=True))
        else:
            summary |= dict.fromkeys(names)
    return summary


def _plain(value: Any) -> Any:
    if isinstance(value, np.complexfloating):
        return [_plain(value.real), _plain(value.imag)]
    if isinstance(value, np.floating):  # a long double; JSON's readers have doubles
        return float(value) if np.isinf(value) == np.isinf(float(value)) else str(value)
    match value:
        case list():
            return [_plain(inner) for inner in value]
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case complex():
            return [value.real, value.imag]
        case tuple():
            return [_plain(inner) for inner in value]
    return value


def line_of(record: dict[str, Any], schema: Schema) -> str:
    """Return one record as a line of text."""
    known, values = columns(schema), []
    for name, value in record["values"].items():
        unit = known[name].unit
        values.append(f"{name} {_text(value)}" + (f" {unit}" if unit else ""))
    if "nbytes" in record:
        values.append(f"({record['nbytes']} of {schema.slot_nbytes} bytes)")
    return f"{record['time']}  {record['seq']}  {'  '.join(values)}"


def _text(value: Any) -> str:
    match value:
        case {"shape": shape, "dtype": dtype, **rest}:
            facts = "".join(f" {name} {_text(number)}" for name, number in rest.items())
            return f"{dtype}[{', '.join(map(str, shape))}]{facts}"
        case list():
            return "[" + " ".join(map(_text, value)) + "]"
        case float():
            return f"{value:.6g}"
        case None:
            return "nan"
        case str():
            return repr(value)
    return str(value)
