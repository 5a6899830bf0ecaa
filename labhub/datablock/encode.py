"""From what people write to the bytes of one slot, without a silent loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.errors import InvalidArgument, SchemaMismatch
from labhub.schema import VALUE, Schema, example

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
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_bytes(value, schema)
    plain = schema.dtype.names is None
    array = _convert(example(value), schema.dtype, VALUE) if plain else _structured(value, schema)  # type: ignore[arg-type]
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
    if isinstance(values, np.ndarray) and (values.dtype.names is None or values.dtype == schema.dtype):
        array = _convert(values, schema.dtype, VALUE)
    elif isinstance(values, Sequence) and not isinstance(values, str | bytes):
        array = np.empty((len(values), *schema.shape), schema.dtype)
        for k, value in enumerate(values):
            array[k] = as_slot(value, schema)
    else:
        raise InvalidArgument(f"write_many takes an array or a list of records, not {type(values).__name__}")
    if array.ndim == 0 or array.shape[1:] != schema.shape:
        raise SchemaMismatch(
            f"slots have shape {schema.shape}, so many of them have (n, *{schema.shape}), not {array.shape}",
            difference=(f"shape: (n, *{schema.shape}) here, {array.shape} there",),
        )
    return np.ascontiguousarray(array)


def as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of a contiguous array as a flat uint8 view."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _from_bytes(value: bytes | bytearray | memoryview, schema: Schema) -> NDArray[Any]:
    data = np.frombuffer(value, np.uint8)
    if data.size != schema.slot_nbytes:
        raise SchemaMismatch(
            f"a slot has {schema.slot_nbytes} bytes, this value has {data.size}",
            difference=(f"size: {schema.slot_nbytes} bytes here, {data.size} there",),
        )
    return data.view(schema.dtype).reshape(schema.shape)


def _structured(value: object, schema: Schema) -> NDArray[Any]:
    if isinstance(value, np.ndarray | np.void):
        array = np.asarray(value)
        if array.dtype != schema.dtype:
            schema.require(Schema(array.dtype, array.shape), "this record")
        return array.astype(schema.dtype, copy=False)
    if schema.shape and isinstance(value, Sequence) and not isinstance(value, str):
        inner = Schema(schema.dtype, schema.shape[1:])
        rows = [_structured(row, inner) for row in value]
        return np.stack(rows) if rows else np.empty((0, *inner.shape), schema.dtype)
    names = schema.fields
    if isinstance(value, Mapping):
        missing, extra = set(names) - set(value), set(value) - set(names)
        if missing or extra:
            lines = [f"field {n!r}: missing in the record" for n in names if n in missing]
            lines += [f"field {n!r}: not in the schema" for n in sorted(map(str, extra))]
            raise SchemaMismatch("this record has other fields:\n  " + "\n  ".join(lines), difference=tuple(lines))
        values = [value[name] for name in names]
    elif isinstance(value, tuple):
        if len(value) != len(names):
            raise SchemaMismatch(
                f"a record has {len(names)} fields ({', '.join(names)}), this tuple {len(value)} values"
            )
        values = list(value)
    else:
        raise SchemaMismatch(f"a record is a dict or a tuple of {', '.join(names)}, not {type(value).__name__}")
    record = np.zeros((), schema.dtype)
    for name, item in zip(names, values, strict=True):
        record[name] = _field(item, record[name], name)
    return record


def _field(item: object, place: NDArray[Any], name: str) -> NDArray[Any]:
    if place.dtype.names is not None:
        return _structured(item, Schema(place.dtype, place.shape))
    array = _convert(example(item), place.dtype, name)  # type: ignore[arg-type]
    if array.shape != place.shape:
        raise SchemaMismatch(f"field {name!r} has shape {place.shape}, this value has {array.shape}")
    return array


def _convert(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if array.dtype == dtype:
        return array
    if array.dtype.hasobject and dtype.kind == "f" and all(type(item) is int for item in array.flat):
        with suppress(OverflowError):  # integers of more than 64 bits are rounded as those of 64 are
            array = array.astype(np.float64)
    integers = array.dtype.kind in "biu" and dtype.kind in "iu"  # the values decide
    if array.dtype.hasobject or not (integers or np.can_cast(array.dtype, dtype, "same_kind")):
        raise SchemaMismatch(
            f"field {name!r} is {dtype}, and {array.dtype} does not convert to it without loss; convert it yourself",
            difference=(f"field {name!r}: {dtype} here, {array.dtype} there",),
        )
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind in "iuSU" and not np.array_equal(converted, array):
        raise SchemaMismatch(
            f"field {name!r} is {dtype}, which cannot hold the value {array.ravel()[:4].tolist()}",
            difference=(f"field {name!r}: {dtype} here, a value outside of it there",),
        )
    return converted
