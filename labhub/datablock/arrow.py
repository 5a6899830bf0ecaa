"""Slots as Arrow tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.datablock import dates
from labhub.datablock.table import FIELD, SEQ, Column, along_time, layout_of, seq_of
from labhub.errors import InvalidArgument, MissingDependency
from labhub.schema import TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from labhub.schema import Schema

SCHEMA = "labhub_schema"
"""Key of the table's metadata for the JSON of the channel's schema, from which a replay makes the channel again."""


def table_of(channel: str, schema: Schema, data: NDArray[Any], headers: NDArray[np.void]) -> pa.Table:
    """Return slots as an Arrow table; see `Batch.to_arrow`."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependency("to_arrow needs pyarrow; run: pip install 'labhub[arrow]'", package="pyarrow") from None
    rows, time_ns, counts = along_time(schema, data, headers)
    time = pa.array(np.ascontiguousarray(time_ns).view("M8[ns]"), pa.timestamp("ns", "UTC"))
    fields = [pa.field(TIME, time.type), pa.field(SEQ, pa.uint64())]
    columns = [time, pa.array(np.ascontiguousarray(seq_of(headers, counts)))]
    for column in layout_of(schema).columns:
        values = column.values(rows)
        try:
            array = _array(pa, values, column.field)
        except (pa.ArrowException, UnicodeError, ValueError, TypeError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(
                f"Arrow has no place for the field {column.field!r} of {values.dtype}: {error}; read it with batch.data"
            ) from None
        fields.append(pa.field(column.name, array.type, metadata=_metadata(column)))
        columns.append(array)
    return pa.table(columns, pa.schema(fields, {"channel": channel, SCHEMA: schema.to_json()}))


def _metadata(column: Column) -> dict[str, str]:
    dtype = column.leaf.dtype
    raw = dates.is_time(dtype) and dates.fine(dtype) is None
    return {
        **({"units": column.unit} if column.unit else {}),
        FIELD: column.field,
        **({dates.DTYPE: dates.name_of(dtype)} if raw else {}),
    }


def _array(pa: Any, values: NDArray[Any], field: str) -> pa.Array:
    """One column; further axes become lists of fixed size."""
    array = _flat(pa, np.ascontiguousarray(values).ravel(), field)
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _flat(pa: Any, values: NDArray[Any], field: str) -> pa.Array:
    match values.dtype.kind:
        case "U":
            return pa.array(values.tolist(), pa.string())
        case "S":
            return pa.array(values.tolist(), pa.binary())
        case "V":
            kind = pa.binary(values.dtype.itemsize)
            return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.tobytes())])
        case "M" | "m":
            return _times(pa, values, field)
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False))


def _times(pa: Any, values: NDArray[Any], field: str) -> pa.Array:
    """Dates and durations; those that Arrow has no unit for as the integers behind them."""
    shown = dates.fine(values.dtype)
    if shown is None:
        return pa.array(dates.integers(values))
    if np.datetime_data(values.dtype) == ("D", 1) and values.dtype.kind == "M":
        days = dates.integers(values)
        beyond = (days != dates.NAT) & (days.astype(np.int32) != days)
        if beyond.any():
            raise InvalidArgument(
                f"the field {field!r} holds {dates.shown(int(days[beyond][0]), values.dtype)}, which Arrow's date32 "
                "cannot hold; read it with batch.data"
            )
        return pa.array(values.astype("M8[D]"))
    return pa.array(dates.exact(values, shown, field))
