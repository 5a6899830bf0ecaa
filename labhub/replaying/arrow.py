"""Arrow columns as arrays: lists of fixed size become axes, structs become records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub.replaying.columns import LeftOut, bytes_array, from_objects, refuse, text_array, with_missing
from labhub.replaying.times import Where, refuse_missing

if TYPE_CHECKING:
    import pyarrow as pa


def plain_times(column: Any, where: Where) -> NDArray[Any]:
    """Return an Arrow column of times as a numpy array: of dates in UTC, durations, numbers or objects."""
    import pyarrow as pa

    array = whole(column)
    if array.null_count:
        refuse_missing(int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))), where)
    kind = array.type
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return _temporal(array)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    return np.array(array.to_pylist(), object)


def arrow_of(series: Any) -> Any:
    """Return the Arrow column of a pandas series that holds one."""
    return series.array.__arrow_array__()


def whole(column: Any) -> pa.Array:
    """Return a column in one piece, without a dictionary or an extension type around it."""
    import pyarrow as pa

    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # of no chunks, or of too many bytes for one
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if isinstance(array.type, pa.BaseExtensionType) and not isinstance(array.type, pa.FixedShapeTensorType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array


def array_of_arrow(column: Any, name: str, where: Where, words: list[str]) -> NDArray[Any]:
    """Return an Arrow column as an array of shape (n, ...) of a dtype that slots can have.

    Raises
    ------
    InvalidArgument
        A number is missing, or lists differ in length. The message names column and row.
    LeftOut
        It cannot be kept.
    """
    import pyarrow as pa

    array = whole(column)
    kind = array.type
    is_ = pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        return _tensors(array, name, where, words)
    if is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind):
        return _numbers(array, name, where, words)
    if is_.is_temporal(kind):
        return _temporal(array)
    if is_.is_fixed_size_list(kind) or is_.is_list(kind) or is_.is_large_list(kind):
        return _lists(array, name, where, words)
    if is_.is_struct(kind):
        return _records(array, name, where, words)
    if is_.is_decimal(kind):
        return from_objects(array.to_pylist(), name, where, words)
    texts, raw = _is_text(kind), is_.is_binary(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind)
    if array.null_count and (texts or raw):
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise LeftOut(f"a value is missing ({where(row)}); fill it to keep the column")
    if texts:
        return text_array(array.to_pylist(), name)
    if raw:
        return bytes_array(array.to_pylist())
    raise LeftOut("it has no values" if is_.is_null(kind) else f"a slot has no place for {kind}")


def _tensors(array: Any, name: str, where: Where, words: list[str]) -> NDArray[Any]:
    """Return arrays of one shape, in the order of their axes."""
    kind = array.type
    flat = _lists(array.storage, name, where, words)
    if flat.dtype.kind in "iub" or not np.isnan(flat).any():  # nothing is missing in it
        return np.asarray(array.to_numpy_ndarray())
    if kind.permutation not in (None, list(range(len(kind.shape)))):
        raise LeftOut("values are missing in arrays of another order of axes; fill them to keep the column")
    return flat.reshape(len(flat), *kind.shape)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    is_view = getattr(pa.types, "is_string_view", lambda _: False)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_view(kind)


def _numbers(array: Any, name: str, where: Where, words: list[str]) -> NDArray[Any]:
    missing = array.is_null().to_numpy(zero_copy_only=False)
    dtype = np.dtype(array.type.to_pandas_dtype())
    filled = array.fill_null(False if dtype.kind == "b" else dtype.type(0)) if missing.any() else array
    return with_missing(filled.to_numpy(zero_copy_only=False), missing, name, where, words)


def _temporal(array: Any) -> NDArray[Any]:
    """Return dates, times of day (as durations) and durations in their own unit; what is missing is NaT."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_date32(kind):
        unit, code, wide = "D", "M", array.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_date64(kind):
        unit, code, wide = "ms", "M", array.cast(pa.int64())
    elif pa.types.is_time32(kind):
        unit, code, wide = kind.unit, "m", array.cast(pa.int32()).cast(pa.int64())
    elif pa.types.is_interval(kind):
        raise LeftOut(f"a slot has no place for {kind}")
    else:
        unit, code = kind.unit, "M" if pa.types.is_timestamp(kind) else "m"
        wide = array.cast(pa.int64())
    unset = np.iinfo(np.int64).min
    numbers = wide.fill_null(unset).to_numpy(zero_copy_only=False)
    return np.asarray(numbers.astype(np.int64).view(f"{code}8[{unit}]"))


def _lists(array: Any, name: str, where: Where, words: list[str]) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    n = len(array)
    gone = array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        inner = array.values.slice(array.offset * size, n * size)
    else:
        lengths = np.array([-1 if k is None else k for k in pc.list_value_length(array).to_pylist()], np.int64)
        size = int(lengths[~gone][0]) if (~gone).any() else 0
        odd = np.flatnonzero(~gone & (lengths != size))
        if len(odd) or (gone.any() and size):
            row = int(odd[0]) if len(odd) else int(np.argmax(gone))
            what = f"a list of {lengths[row]} where others have {size}" if len(odd) else "a list is missing"
            refuse(name, row, where, what, "a slot has one shape: make all lists as long, or leave the column out")
        inner = array.flatten()
    if not size:
        raise LeftOut("its lists are empty")
    found = array_of_arrow(inner, name, lambda k: where(k // max(1, size)), words)
    found = found.reshape(n, size, *found.shape[1:])
    if gone.any():
        rows = np.broadcast_to(gone.reshape(n, *(1,) * (found.ndim - 1)), found.shape)
        found = with_missing(found, rows, name, where, words) if found.dtype.kind in "biuf" else found
        if found.dtype.kind not in "f":
            raise LeftOut(f"a list is missing ({where(int(np.argmax(gone)))}); fill it to keep the column")
    return found


def _records(array: Any, name: str, where: Where, words: list[str]) -> NDArray[Any]:
    if array.null_count:
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise LeftOut(f"a value is missing ({where(row)}); fill it to keep the column")
    parts = {
        array.type.field(k).name: array_of_arrow(part, f"{name}.{array.type.field(k).name}", where, words)
        for k, part in enumerate(array.flatten())
    }
    if not parts:
        raise LeftOut("its records have no fields")
    records = np.zeros(len(array), [(key, part.dtype, part.shape[1:]) for key, part in parts.items()])
    for key, part in parts.items():
        records[key] = part
    return records
