"""From one plain dtype to another, value by value: the same value, a rounded float, or `SchemaMismatch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from labhub.arrays import example, is_plain_bytes, memory_of, refuse_masked
from labhub.errors import InvalidArgument, SchemaMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FROM = {
    "b": "b",
    "i": "biu",
    "u": "biu",
    "f": "biuf",
    "c": "biufc",
    "m": "bium",
    "M": "M",
    "S": "S",
    "U": "UT",
    "V": "",
}
"""By kind of dtype: the kinds whose values it can have. Whether it has each value is looked at."""

_BY_ITEM = frozenset("SUVMm")
"""Kinds of dtype whose lists are read item by item: numpy would find a common dtype first, and lose values in that."""

_SCALARS = (bool, int, float, complex, str, bytes, np.generic)


_COMMON = (float, int, list, tuple, np.generic, np.ndarray)
"""Types that are no mapping, which to find out takes longer than the rest."""

_ADVICE = {
    "M": "write np.datetime64(...) of it, in UTC",
    "m": "write np.timedelta64(...) of it",
    "f": "write float(...) of it",
    "S": "write bytes",
    "U": "write str(...) of it",
}
"""By kind of dtype: what to do with an object of a type that numpy has no dtype for."""


def plain(value: object, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return a value as an array of a dtype without fields; `name` is that of the field, for errors.

    Raises
    ------
    SchemaMismatch
        If the dtype cannot have one of its values.
    InvalidArgument
        If it cannot be an array at all.
    """
    if type(value) is np.ndarray:
        return convert(value, dtype, name)
    if dtype.kind in _BY_ITEM and isinstance(value, list | tuple):
        return stacked([plain(item, dtype, name) for item in value], dtype, name)
    if dtype.kind in "SV" and is_plain_bytes(value):
        return text_of(memory_of(value).tobytes(), dtype, name)
    if dtype.kind == "u" and dtype.itemsize == 1 and is_plain_bytes(value):
        return memory_of(value)
    if dtype.kind == "U" and isinstance(value, str) and value[-1:] == "\0":
        _refuse(name, dtype, value, "a text that ends with NUL is read without it; strip it")
    if type(value) is dict or (not isinstance(value, _COMMON) and isinstance(value, Mapping)):
        raise SchemaMismatch(f"field {name!r} is {dtype} and has no fields of its own, so a dict has no place in it")
    array = example(value, name)  # type: ignore[arg-type]
    if array.dtype.kind == "f" and dtype.kind in "iu" and isinstance(value, list | tuple):
        # What numpy makes of a list of integers of which some need uint64.
        items = np.asarray(value, object)
        array = items if all(isinstance(item, int | np.integer) for item in items.flat) else array
    return convert(array, dtype, name)


def text_of(data: bytes, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return bytes as a scalar array of dtype S or V: exactly its bytes, or for S a shorter text."""
    if len(data) != dtype.itemsize:
        if dtype.kind == "V" or len(data) > dtype.itemsize:
            _refuse(name, dtype, data, f"it has {len(data)} bytes; a dtype of {dtype.kind}{len(data)} can hold it")
        if data[-1:] == b"\0":
            _refuse(name, dtype, data, "a text that ends with NUL is read without it; strip it")
    return np.frombuffer(data.ljust(dtype.itemsize, b"\0"), dtype).reshape(())


def convert(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return an array in another dtype, neither of them with fields.

    Raises
    ------
    SchemaMismatch
        If the dtype cannot have one of its values. Rounding to the precision of a float is no such case.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind == "O":
        array = _of_objects(array, dtype, name)
    if array.dtype.kind not in _FROM[dtype.kind]:
        _refuse_kind(array.dtype, dtype, name)
    return _CONVERTERS[dtype.kind](array, dtype, name)


def _exactly(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    converted = array.astype(dtype)
    _check(array, converted != array, dtype, name, "declare a dtype that can have it, or change it yourself")
    return converted


def _rounded(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    try:
        with np.errstate(over="raise", under="ignore"):
            return array.astype(dtype)
    except FloatingPointError:
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = _became_infinite(array, array.astype(dtype))
        _check(array, wrong, dtype, name, "it would become inf; declare a wider dtype, or clip it yourself")
        raise


def _became_infinite(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    if after.dtype.kind != "c":
        infinite: NDArray[np.bool_] = np.isfinite(before) & ~np.isfinite(after)
        return infinite
    return _became_infinite(before.real, after.real) | _became_infinite(before.imag, after.imag)


def _text(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    try:
        converted = array.astype(dtype)
        wrong = converted.astype(array.dtype) != array
    except (ValueError, TypeError) as error:  # a missing text of a StringDType
        raise SchemaMismatch(f"field {name!r} is {dtype}, and a text of this {array.dtype} is none: {error}") from None
    _check(array, wrong, dtype, name, "declare a longer dtype, or cut it yourself")
    return converted


def _times(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind in "biu":
        converted = array.astype(dtype)
        wrong = (converted.astype(np.int64) != array) | np.isnat(converted)
        _check(array, wrong, dtype, name, "declare a coarser unit")
        return converted
    if np.datetime_data(array.dtype)[0] == "generic":
        _check(array, ~np.isnat(array), dtype, name, "a time without a unit says nothing; give it one")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):  # months and years have no fixed length
        _check(array, ~np.isnat(array), dtype, name, "the units do not convert; convert it yourself")
    unit = np.datetime_data(array.dtype)[0]
    try:
        converted = array.astype(dtype)
        wrong = (converted.astype(array.dtype) != array) & ~(np.isnat(array) & np.isnat(converted))
    except OverflowError:  # numpy has no factor between days and picoseconds, say
        converted, wrong = np.full(array.shape, "NaT", dtype), ~np.isnat(array)
    _check(array, wrong, dtype, name, f"declare {dtype.kind}8[{unit}], or round it to the channel's unit yourself")
    return converted


_CONVERTERS: dict[str, Callable[[NDArray[Any], np.dtype[Any], str], NDArray[Any]]] = {
    "b": _exactly,
    "i": _exactly,
    "u": _exactly,
    "f": _rounded,
    "c": _rounded,
    "m": _times,
    "M": _times,
    "S": _text,
    "U": _text,
}


def _of_objects(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return an array of Python objects as numpy reads a list of them, if all are scalars that it has a dtype for."""
    for item in array.flat:
        refuse_masked(item, name)
        if not isinstance(item, _SCALARS) or isinstance(item, np.void):
            _refuse(name, dtype, item, f"its type does not convert; {_ADVICE.get(dtype.kind, 'convert it yourself')}")
    items = array.ravel().tolist()
    huge = [item for item in items if isinstance(item, int) and not -(2**63) <= item < 2**64]
    if huge and dtype.kind not in "fc":
        _refuse(name, dtype, huge[0], "declare a dtype that can have it, or change it yourself")
    if dtype.kind in _BY_ITEM or dtype.kind in "iu":
        return stacked([plain(item, dtype, name) for item in items], dtype, name).reshape(array.shape)
    if dtype.kind in "fc" and all(type(item) is int for item in items):
        try:  # integers of more than 64 bits are rounded as those of 64 are
            return array.astype(np.float64)
        except OverflowError:
            _refuse(name, dtype, max(items, key=abs), "it would become inf; clip it yourself")
    found = example(items)
    if found.dtype.hasobject:
        _refuse(name, dtype, (huge or items)[0], "declare a dtype that can have it, or change it yourself")
    return found.reshape(array.shape)


def stacked(rows: list[NDArray[Any]], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return arrays of a dtype as the rows of one; `InvalidArgument` if they have different shapes."""
    if not rows:
        return np.empty(0, dtype)
    if len({row.shape for row in rows}) > 1:
        raise InvalidArgument(f"field {name!r}: the items of a list have different shapes, {rows[0].shape} and others")
    # NumPy would choose a dtype of its own: in the machine's byte order, and without the gaps between fields.
    return np.stack(rows, out=np.empty((len(rows), *rows[0].shape), dtype))


def _check(array: NDArray[Any], wrong: NDArray[np.bool_], dtype: np.dtype[Any], name: str, advice: str) -> None:
    if not np.any(wrong):
        return
    first = np.argwhere(np.atleast_1d(wrong))[0] if array.ndim else ()
    value = array[tuple(first)]
    exact = isinstance(value, np.datetime64 | np.timedelta64) or not isinstance(value, np.generic)
    shown = value if exact else value.item()
    place = f" at {tuple(int(k) for k in first)}" if array.ndim else ""
    _refuse(name, dtype, shown, advice, place)


def _refuse(name: str, dtype: np.dtype[Any], value: object, advice: str, place: str = "") -> NoReturn:
    shown = str(value) if isinstance(value, np.datetime64 | np.timedelta64) else repr(value)
    shown = f"a {type(value).__name__}" if " at 0x" in shown else shown
    shown = shown if len(shown) <= 80 else f"{shown[:60]}... ({len(shown)} characters)"
    raise SchemaMismatch(
        f"field {name!r} is {dtype}, which cannot hold the value {shown}{place}: {advice}",
        difference=(f"field {name!r}: {dtype} here, a value outside of it there",),
    )


def _refuse_kind(found: np.dtype[Any], dtype: np.dtype[Any], name: str) -> NoReturn:
    advice = "convert it yourself"
    if {found.kind, dtype.kind} == {"S", "U"}:
        advice = "decode it: value.decode()" if found.kind == "S" else "encode it: value.encode()"
    raise SchemaMismatch(
        f"field {name!r} is {dtype}, and {found} does not convert to it without loss; {advice}",
        difference=(f"field {name!r}: {dtype} here, {found} there",),
    )
