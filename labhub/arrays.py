"""From what people hand over to a numpy array that says the same: no mask, no bit and no text is lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import countOf
from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.errors import InvalidArgument, SchemaMismatch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PLAIN_BYTES = frozenset({"B", "b", "c"})
"""Formats of a memoryview that is bytes, as `bytes` is; with every other one it is an array of its own dtype."""


_PLAIN = frozenset({float, int, bool, complex, str, bytes})
"""Types of items that are looked at at once."""


def example(value: ArrayLike | Mapping[str, Any], name: str = "value") -> NDArray[Any]:
    """Turn an example of a slot into an array; a dict becomes a structured record. `name` is the field's, for errors.

    Raises
    ------
    SchemaMismatch
        If an element of it is masked.
    InvalidArgument
        If it cannot be an array.
    """
    if type(value) is np.ndarray:
        return value
    refuse_masked(value, name)
    try:
        if not isinstance(value, Mapping):
            return np.asarray(value)
        columns = {str(key): _column(item, str(key)) for key, item in value.items()}
        record = np.empty((), [(key, c.dtype, c.shape) for key, c in columns.items()])
        for key, column in columns.items():
            record[key] = column
    except (TypeError, ValueError, BufferError, OverflowError) as error:
        if isinstance(error, SchemaMismatch):
            raise
        raise InvalidArgument(f"{type(value).__name__} cannot be one slot of an array: {error}") from None
    return record


def _column(item: Any, name: str) -> NDArray[Any]:
    refuse_masked(item, name)
    return np.asarray(item)


def refuse_masked(value: object, name: str) -> None:
    """Raise `SchemaMismatch` if an element of an array, or of arrays in lists, is masked: a slot has no mask."""
    if isinstance(value, np.ma.MaskedArray):
        mask = np.ascontiguousarray(np.ma.getmaskarray(value)).reshape(-1).view(np.bool_)
        if n := int(np.count_nonzero(mask)):
            raise SchemaMismatch(
                f"field {name!r}: {n} of {mask.size} elements masked, but a slot has no mask; put a value in their "
                "place with .filled(...), as in value.filled(np.nan), or send the mask in a field of its own"
            )
    elif isinstance(value, list | tuple) and len(value):
        first = type(value[0])
        if first in _PLAIN and countOf(map(type, value), first) == len(value):
            return
        if any(issubclass(kind, list | tuple | np.ma.MaskedArray) for kind in set(map(type, value))):
            for item in value:
                refuse_masked(item, name)


def is_plain_bytes(value: object) -> bool:
    """Whether this is `bytes`, a `bytearray`, or a memoryview of bytes.

    Raises
    ------
    InvalidArgument
        If it is a memoryview that was released.
    """
    if not isinstance(value, memoryview):
        return isinstance(value, bytes | bytearray)
    try:
        return value.format in PLAIN_BYTES
    except ValueError as error:
        raise InvalidArgument(f"this memoryview cannot be read: {error}") from None


def memory_of(buffer: object, *, contiguous: bool = False) -> NDArray[np.uint8]:
    """Return the memory of a buffer as it is, in C order; a view of it where it lies like that.

    Raises
    ------
    SchemaMismatch
        If an element is masked.
    InvalidArgument
        If it is no buffer, or one of Python objects, or has to be `contiguous` and is not.
    """
    refuse_masked(buffer, "value")
    if isinstance(buffer, bytes):  # also np.bytes_, of which numpy makes an array without its zeros
        return np.frombuffer(buffer, np.uint8)
    try:
        if isinstance(buffer, np.ndarray | np.generic):
            array = np.asarray(buffer)
            if array.dtype.hasobject or array.dtype.kind == "T":
                raise InvalidArgument(f"an array of {array.dtype} holds Python objects, which are no bytes")
            return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        view = memoryview(buffer)  # type: ignore[arg-type]
        if "O" in view.format or "P" in view.format:
            raise InvalidArgument(f"a buffer of format {view.format!r} holds pointers, which are no bytes")
        if contiguous and not view.c_contiguous:
            raise InvalidArgument("a C-contiguous buffer is needed; its copy, bytes(view), is one")
        return np.frombuffer(view if view.c_contiguous else view.tobytes(), np.uint8)
    except (TypeError, ValueError, BufferError, NotImplementedError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"bytes or another buffer is needed, not {type(buffer).__name__}: {error}") from None


def columns_of(table: object) -> dict[str, Any] | None:
    """Return the columns of a data frame, a dataset or a dict of columns, by name; None for anything else."""
    if isinstance(table, Mapping):
        return {str(name): table[name] for name in table}
    names = None if isinstance(table, np.ndarray) else getattr(table, "columns", None)
    if not isinstance(names, Iterable):
        return None
    found = list(names)
    return {name: table[name] for name in found} if all(isinstance(n, str) for n in found) else None  # type: ignore[index]


def is_list(values: object) -> bool:
    """Whether this is a list of items, each of which is looked at alone: no text, and no buffer, which is an array."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return False
    try:
        memoryview(values)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return not isinstance(values, memoryview)
    return False
