"""From what people write to the bytes of one slot, without a silent loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.arrays import columns_of, example, is_list, is_plain_bytes, memory_of
from labhub.datablock.convert import convert, plain, stacked, text_of
from labhub.errors import InvalidArgument, SchemaMismatch
from labhub.schema import VALUE, Schema

if TYPE_CHECKING:
    from numpy.typing import NDArray


def as_slot(value: object, schema: Schema) -> NDArray[Any]:
    """Return `value` as an array of exactly the schema's dtype and shape.

    Raises
    ------
    SchemaMismatch
        If its shape or fields differ, or its values cannot be represented in the schema's dtype.
    InvalidArgument
        If it cannot be an array at all.
    """
    if isinstance(value, bytes | bytearray | memoryview) and is_plain_bytes(value):
        return _from_bytes(value, schema)
    array = plain(value, schema.dtype, VALUE) if schema.dtype.names is None else _structured(value, schema)
    if array.shape != schema.shape:
        raise SchemaMismatch(
            f"a slot has shape {schema.shape}, this value has {array.shape}",
            difference=(f"shape: {schema.shape} here, {array.shape} there",),
        )
    return array


def as_slots(values: object, schema: Schema) -> NDArray[Any]:
    """Return `values` as a contiguous array of shape (n, *slot_shape).

    Raises
    ------
    SchemaMismatch, InvalidArgument
        As `as_slot`.
    """
    array = _many(values, schema)
    if array.ndim == 0 or array.shape[1:] != schema.shape:
        raise SchemaMismatch(
            f"slots have shape {schema.shape}, so many of them have (n, *{schema.shape}), not {array.shape}",
            difference=(f"shape: (n, *{schema.shape}) here, {array.shape} there",),
        )
    return np.ascontiguousarray(array)


def first_of(values: object) -> object:
    """Return the first of many slots, with the dtype that all of them have; None if there is none."""
    if is_list(values):
        assert isinstance(values, Sequence)
        return values[0] if len(values) else None
    columns = columns_of(values)
    if columns is not None:
        arrays = {name: _column(column, name) for name, column in columns.items()}
        return {name: a[0, ...] for name, a in arrays.items()} if all(map(len, arrays.values())) else None
    array = _array_of_many(values)
    return array[0, ...] if array.ndim and len(array) else None


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of a contiguous array as a flat uint8 view."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _many(values: object, schema: Schema) -> NDArray[Any]:
    dtype = schema.dtype
    if is_list(values):
        return _each(values, schema)  # type: ignore[arg-type]
    columns = columns_of(values) if dtype.names is not None or isinstance(values, Mapping) else None
    if columns is not None:
        return _from_columns(columns, schema)
    array = _array_of_many(values)
    if array.dtype.kind == "O" and array.ndim:
        return _each(list(array), schema)
    return convert(array, dtype, VALUE) if dtype.names is None else _records(array, dtype)


def _each(values: Sequence[object], schema: Schema) -> NDArray[Any]:
    array = np.empty((len(values), *schema.shape), schema.dtype)
    for k, value in enumerate(values):
        array[k] = as_slot(value, schema)
    return array


def _array_of_many(values: object) -> NDArray[Any]:
    array = None if isinstance(values, str | bytes) else example(values)  # type: ignore[arg-type]
    if array is None or (array.ndim == 0 and not isinstance(values, np.ndarray)):
        raise InvalidArgument(f"write_many takes an array or a list of records, not {type(values).__name__}")
    return array


def _column(column: Any, name: str) -> NDArray[Any]:
    array = example(column, name)
    if array.ndim == 0:
        raise SchemaMismatch(f"column {name!r} is a single value; a column of many slots has one value for each")
    return array


def _from_columns(columns: Mapping[str, Any], schema: Schema) -> NDArray[Any]:
    if schema.dtype.names is None:
        raise InvalidArgument("write_many takes an array or a list of records; columns have no place in a plain dtype")
    _require_fields(columns, schema.fields, "these columns have other names than the fields of a slot")
    arrays = {name: _column(columns[name], name) for name in schema.fields}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
        raise SchemaMismatch(f"the columns have different lengths ({lengths}); each has one value for each slot")
    table = np.zeros(len(next(iter(arrays.values()))), schema.dtype)
    for name in schema.fields:
        table[name] = _field(columns[name], table[name], name)
    return table


def _from_bytes(value: object, schema: Schema) -> NDArray[Any]:
    data = np.frombuffer(value, np.uint8) if type(value) is bytes else memory_of(value)
    if schema.dtype.kind == "S" and not schema.shape:
        return text_of(data.tobytes(), schema.dtype, VALUE)
    if data.size != schema.slot_nbytes:
        raise SchemaMismatch(
            f"a slot has {schema.slot_nbytes} bytes, this value has {data.size}",
            difference=(f"size: {schema.slot_nbytes} bytes here, {data.size} there",),
        )
    return data.view(schema.dtype).reshape(schema.shape)


def _structured(value: object, schema: Schema, path: str = "") -> NDArray[Any]:
    if isinstance(value, np.ndarray | np.void):
        return _records(example(value, path or VALUE), schema.dtype)
    if schema.shape and isinstance(value, Sequence) and not isinstance(value, str):
        inner = Schema(schema.dtype, schema.shape[1:])
        rows = [_structured(row, inner, path) for row in value]
        if len({row.shape for row in rows}) > 1:
            raise SchemaMismatch(f"a slot has shape {schema.shape}, the rows of this value have different ones")
        return stacked(rows, schema.dtype, path or VALUE) if rows else np.empty((0, *inner.shape), schema.dtype)
    names = schema.fields
    if isinstance(value, Mapping):
        _require_fields(value, names, "this record has other fields")
        values = [value[name] for name in names]
    elif isinstance(value, tuple):
        if len(value) != len(names):
            raise SchemaMismatch(
                f"a record has {len(names)} fields ({', '.join(names)}), this tuple {len(value)} values"
            )
        values = list(value)
    elif not isinstance(value, list) and (array := example(value)).dtype.names is not None:  # type: ignore[arg-type]
        return _records(array, schema.dtype)
    else:
        raise SchemaMismatch(f"a record is a dict or a tuple of {', '.join(names)}, not {type(value).__name__}")
    record = np.zeros((), schema.dtype)
    for name, item in zip(names, values, strict=True):
        record[name] = _field(item, record[name], f"{path}.{name}" if path else name)
    return record


def _require_fields(found: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    missing, extra = set(names) - set(found), set(found) - set(names)
    if missing or extra:
        lines = [f"field {n!r}: missing in the record" for n in names if n in missing]
        lines += [f"field {n!r}: not in the schema" for n in sorted(map(str, extra))]
        raise SchemaMismatch(f"{what}:\n  " + "\n  ".join(lines), difference=tuple(lines))


def _records(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of records in another layout of the same fields, each with the dtype that it has there."""
    if array.dtype == dtype:
        return array
    if not _same_fields(array.dtype, dtype):
        raise _other_fields(array.dtype, dtype)
    records = np.zeros(array.shape, dtype)
    for name in dtype.names or ():
        inner = records[name]
        records[name] = array[name] if inner.dtype.names is None else _records(array[name], inner.dtype)
    return records


def _other_fields(found: np.dtype[Any], wanted: np.dtype[Any]) -> SchemaMismatch:
    here, there = ({name: str(d[name]) for name in d.names or ()} for d in (wanted, found))
    lines = tuple(
        f"field {name!r}: {here.get(name, 'missing')} here, {there.get(name, 'missing')} there"
        for name in [*here, *(n for n in there if n not in here)]
        if here.get(name) != there.get(name)
    )
    return SchemaMismatch(
        f"this {'record' if there else found} has other fields:\n  " + "\n  ".join(lines), difference=lines
    )


def _same_fields(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether two dtypes have the same fields, whatever their order, places and byte orders."""
    if one.shape != other.shape:
        return False
    one, other = one.base, other.base
    if one.names is None or other.names is None:
        return one.newbyteorder("=") == other.newbyteorder("=")
    return set(one.names) == set(other.names) and all(_same_fields(one[name], other[name]) for name in one.names)


def _field(item: object, place: NDArray[Any], name: str) -> NDArray[Any]:
    if place.dtype.names is not None:
        array = _structured(item, Schema(place.dtype, place.shape), name)
    else:
        array = plain(item, place.dtype, name)
    if array.shape != place.shape:
        raise SchemaMismatch(f"field {name!r} has shape {place.shape}, this value has {array.shape}")
    return array
