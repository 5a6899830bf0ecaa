"""Columns of a table or dataset as arrays that a slot can hold: every value as it was, or a word about it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument
from labhub.replaying.times import Where, dates_of

LONGEST_TEXT = 4096
"""Text of more characters, or bytes, is left out: each slot would be as long as the longest one."""
FLOAT_DIGITS = 15
"""Every decimal number of so many digits comes back unchanged from the nearest float64."""


class LeftOut(Exception):
    """A column cannot be kept, for a reason that a line tells."""


@dataclass(frozen=True, eq=False)
class Column:
    """One column.

    Attributes
    ----------
    name : str
        The field that it becomes.
    dtype : dtype
    shape : tuple of int
        What each row holds.
    read : callable
        Of a slice of rows, or their numbers: their values, shape (n_rows, *shape).
    dims : tuple of str
        Names of the axes of `shape`, where they have some.
    unit : str
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[Any], NDArray[Any]]
    dims: tuple[str, ...] = ()
    unit: str = ""

    @classmethod
    def of(cls, name: str, values: NDArray[Any], dims: tuple[str, ...] = (), unit: str = "") -> Column:
        """Return the column whose values are an array."""
        return cls(name, values.dtype, values.shape[1:], values.__getitem__, dims, unit)


@dataclass(eq=False)
class Found:
    """What was found in a source, beside its times.

    Attributes
    ----------
    columns : list of Column
    attrs : dict
        Notes of the source, as plain JSON values.
    words : list of str
        What was left out, or is another type now: a line for each.
    """

    columns: list[Column] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def note(self, attrs: Mapping[Any, Any], before: str = "") -> None:
        """Keep notes; what is no plain value is told."""
        for key, value in attrs.items():
            try:
                self.attrs[f"{before}{key}"] = plain_value(value)
            except (TypeError, RecursionError):
                self.words.append(
                    f"attribute {before + str(key)!r} is left out: {type(value).__name__} is no plain value"
                )


def plain_value(value: Any) -> Any:
    """Return a note as a plain JSON value; numbers that JSON has no word for become text. TypeError if it is none."""
    match value:
        case None | bool() | str():
            return value
        case np.ndarray() | np.generic() if value.dtype.kind not in "Mm":
            return plain_value(value.tolist())
        case np.ndarray():
            return plain_value(value.astype(str).tolist())
        case np.datetime64() | np.timedelta64() | Decimal() | Fraction():
            return str(value)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case list() | tuple():
            return [plain_value(item) for item in value]
        case Mapping():
            return {str(key): plain_value(item) for key, item in value.items()}
    raise TypeError(type(value).__name__)


def refuse(name: str, row: int, where: Where, what: str, advice: str) -> NoReturn:
    """Raise `InvalidArgument` about one value of a column."""
    raise InvalidArgument(f"{where(row)}, column {name!r}: {what}; {advice}")


def array_of(values: NDArray[Any], name: str, where: Where) -> NDArray[Any]:
    """Return an array of shape (n, ...) as one of a dtype that slots can have.

    Raises
    ------
    InvalidArgument
        A number is missing, for example.
    LeftOut
    """
    match values.dtype.kind:
        case "O" | "T":
            per_row = math.prod(values.shape[1:])
            flat = from_objects(
                values.astype(object).ravel().tolist() if values.ndim > 1 else list(values.astype(object)),
                name,
                lambda k: where(k // max(1, per_row)),
            )
            return flat.reshape(*values.shape, *flat.shape[1:])
        case "M" | "m" if np.datetime_data(values.dtype)[0] == "generic":
            raise LeftOut(f"{values.dtype} has no unit")
        case "U" | "S" | "V" if not values.dtype.itemsize:
            return values.astype(f"{values.dtype.kind}1")
    return values


def with_missing(
    numbers: NDArray[Any], missing: NDArray[np.bool_], name: str, where: Where, words: list[str]
) -> NDArray[Any]:
    """Return numbers of which some are missing: NaN, if every other one is what it was in float64.

    Raises
    ------
    InvalidArgument
        A boolean, or an integer beyond 2**53, has no such form.
    """
    if not missing.any():
        return numbers
    row = int(np.unravel_index(int(np.argmax(missing)), missing.shape)[0])
    if numbers.dtype.kind == "f":
        return np.where(missing, np.nan, numbers).astype(numbers.dtype)
    if numbers.dtype.kind == "b":
        refuse(name, row, where, "a boolean is missing", "fill it, or leave the row out")
    wide = np.where(missing, 0, numbers)
    if (wide > 2**53).any() or (wide < -(2**53)).any():
        advice = "fill it, or leave the row out; NaN would need float64, which changes the other values"
        refuse(name, row, where, "an integer is missing", advice)
    words.append(f"column {name!r} is float64 now: integers are missing, and NaN stands for them")
    return np.where(missing, np.nan, wide.astype(np.float64))


def from_objects(items: Sequence[Any], name: str, where: Where, words: list[str] | None = None) -> NDArray[Any]:
    """Return Python objects as an array: all numbers, all text, all bytes, all dates, all durations or all arrays.

    Raises
    ------
    InvalidArgument, LeftOut
    """
    missing = np.array([_is_missing(item) for item in items], np.bool_)
    present = [item for item, gone in zip(items, missing, strict=True) if not gone]
    kinds = {_kind_of(item) for item in present}
    first = int(np.argmax(missing)) if missing.any() else -1
    match sorted(kinds):
        case []:
            raise LeftOut("it has no values")
        case ["boolean"] | ["integer"]:
            rest = iter(_whole(present, name, where, missing))
            numbers = [0 if gone else next(rest) for gone in missing]
            large = np.uint64 if max(numbers) >= 2**63 else np.int64
            filled = np.array(numbers, np.bool_ if kinds == {"boolean"} else large)
            return with_missing(filled, missing, name, where, [] if words is None else words)
        case ["text"] | ["bytes"] | ["array"] if first >= 0:
            raise LeftOut(f"a value is missing ({where(first)}); fill it to keep the column")
        case ["text"]:
            return text_array(present, name)
        case ["bytes"]:
            return bytes_array(present)
        case ["date"] | ["duration"]:
            return _dates(items, kinds.pop())
        case ["array"]:
            return _stacked(present, name, where)
        case found if kinds <= {"integer", "float", "decimal"}:
            return np.array([np.nan if gone else _exact(v, name, k, where) for k, (v, gone) in _zipped(items, missing)])
        case found if kinds <= {"integer", "float", "complex"}:
            return np.array([np.nan if gone else complex(v) for _, (v, gone) in _zipped(items, missing)], complex)
    raise LeftOut(f"it holds {' and '.join(found)}")


def _zipped(items: Sequence[Any], missing: NDArray[np.bool_]) -> list[tuple[int, tuple[Any, bool]]]:
    return list(enumerate(zip(items, missing.tolist(), strict=True)))


def _is_missing(item: Any) -> bool:
    import pandas as pd

    return item is None or (pd.api.types.is_scalar(item) and not isinstance(item, float) and bool(pd.isna(item)))


def _kind_of(item: Any) -> str:
    match item:
        case bool() | np.bool_():
            return "boolean"
        case np.timedelta64() | datetime.timedelta():
            return "duration"
        case datetime.date() | np.datetime64():
            return "date"
        case int() | np.integer():
            return "integer"
        case float() | np.floating():
            return "float"
        case complex() | np.complexfloating():
            return "complex"
        case Decimal() | Fraction():
            return "decimal"
        case str():
            return "text"
        case bytes() | bytearray():
            return "bytes"
        case np.ndarray() | list() | tuple():
            return "array"
    return type(item).__name__


def _whole(present: list[Any], name: str, where: Where, missing: NDArray[np.bool_]) -> list[int]:
    """Return integers of Python that fit into 64 bits."""
    numbers = [int(item) for item in present]
    least, most = min(numbers), max(numbers)
    if least < -(2**63) or most > (2**63 - 1 if least < 0 else 2**64 - 1):
        odd = numbers.index(most if most >= 2**63 else least)
        row = int(np.flatnonzero(~missing)[odd])
        refuse(name, row, where, f"{numbers[odd]} needs more than 64 bits", "convert the column to float or text")
    return numbers


def _exact(item: Any, name: str, row: int, where: Where) -> float:
    """Return the float64 that stands for a number; an integer or decimal must come back from it unchanged."""
    if isinstance(item, float | np.floating):
        return float(item)
    if isinstance(item, Decimal) and not item.is_finite():
        return float(item)
    try:
        found = float(item)
        same = found == item if isinstance(item, int | np.integer) else Fraction(repr(found)) == Fraction(item)
        if same or _few_digits(item):
            return found
    except OverflowError:
        pass
    refuse(name, row, where, f"{item} has more digits than float64", "round the column, or convert it to text")


def _few_digits(item: Any) -> bool:
    return isinstance(item, Decimal) and len(item.normalize().as_tuple().digits) <= FLOAT_DIGITS


def text_array(texts: Sequence[str], name: str = "") -> NDArray[np.str_]:
    """Return text of fixed length."""
    longest = max(map(len, texts), default=0)
    if longest > LONGEST_TEXT:
        raise LeftOut(f"it holds text of {longest} characters, and a slot takes {LONGEST_TEXT}")
    if any(text.endswith("\0") for text in texts):
        raise LeftOut("it holds text that ends with a NUL character, which text of fixed length cannot keep")
    return np.array(texts, f"U{max(1, longest)}")


def bytes_array(items: Sequence[bytes]) -> NDArray[Any]:
    """Return bytes of fixed length: an S dtype, or raw ones if it would lose zeros at an end."""
    longest = max(map(len, items), default=0)
    if longest > LONGEST_TEXT:
        raise LeftOut(f"it holds {longest} bytes in a row, and a slot takes {LONGEST_TEXT}")
    if not any(bytes(item).endswith(b"\0") for item in items):
        return np.array([bytes(item) for item in items], f"S{max(1, longest)}")
    if any(len(item) != longest for item in items):
        raise LeftOut("it holds bytes of different lengths that end with zeros")
    return np.frombuffer(b"".join(items), f"V{longest}").copy()


def _dates(items: Sequence[Any], kind: str) -> NDArray[Any]:
    import pandas as pd

    given = [None if _is_missing(item) else item for item in items]
    try:
        if kind == "duration":
            return np.asarray(pd.to_timedelta(pd.Series(given, dtype=object)).to_numpy())
        return dates_of(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise LeftOut(f"its {kind}s have no common form: {error}") from None


def _stacked(present: list[Any], name: str, where: Where) -> NDArray[Any]:
    # Of a list, NumPy would make text of a number beside text, and floats of integers beside one.
    arrays = [item if isinstance(item, np.ndarray) else np.array(item, object) for item in present]
    for row, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            what = f"an array of shape {array.shape} where others have {arrays[0].shape}"
            refuse(name, row, where, what, "a slot has one shape: make them alike, or leave the column out")
    if not arrays[0].size:
        raise LeftOut("its arrays are empty")
    if any(array.dtype.hasobject for array in arrays):
        flat = [item for array in arrays for item in array.ravel().tolist()]
        per_row = max(1, arrays[0].size)
        found = from_objects(flat, name, lambda k: where(k // per_row))
        return found.reshape(len(arrays), *arrays[0].shape, *found.shape[1:])
    stacked = np.stack(arrays)
    if any(array.dtype != stacked.dtype and not np.array_equal(stacked[k], array) for k, array in enumerate(arrays)):
        raise LeftOut("its arrays have no common dtype that keeps every value")
    return array_of(stacked, name, where)
