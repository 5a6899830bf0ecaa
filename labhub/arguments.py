"""Checks of what callers pass: each error names the argument, says what it may be, and shows what it was."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from numbers import Complex, Real
from typing import Any, SupportsFloat

from labhub.errors import InvalidArgument
from labhub.words import quoted

# What describes a slot, in words.
SHAPE = "a length such as 64, or several such as (64, 8)"
DIMS = "a name such as 'time', or several such as ('y', 'x')"
UNITS = "a text such as 'mbar', or one for each field such as {'pressure': 'mbar'}"
ATTRS = "a mapping of names to notes such as {'operator': 'Ann'}"

LARGEST = 2**63 - 1
"""The largest count, seq or size that the compiled core takes."""


def wrong(name: str, form: str, value: object) -> InvalidArgument:
    """Return the error that says what an argument may be, and what it was."""
    return InvalidArgument(f"{name} is {form}, not {quoted(value)}")


def checked_flag(name: str, value: object) -> bool:
    """Return a truth value, Python's or numpy's; `InvalidArgument` for anything else."""
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise wrong(name, "True or False", value)


def checked_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return a word that is one of the choices; `InvalidArgument` for anything else."""
    words = list(choices)
    if isinstance(value, str) and value in words:
        return value
    *first, last = map(repr, words)
    raise wrong(name, f"{', '.join(first)} or {last}", value)


def checked_text(name: str, value: object) -> str:
    """Return a text; `InvalidArgument` for anything else."""
    if isinstance(value, str):
        return value
    raise wrong(name, "a text", value)


def checked_path(name: str, value: object, form: str = "a path, as text or pathlib.Path") -> str:
    """Return a path as text; `InvalidArgument` for anything else."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(found, str) and found and "\0" not in found:
        return found
    raise wrong(name, form, value)


def checked_several(name: str, value: object, form: str) -> tuple[Any, ...]:
    """Return the elements of a sequence; `InvalidArgument` for a text, a mapping, a set, or a single value."""
    if isinstance(value, str | bytes | bytearray | Mapping | set | frozenset) or not isinstance(value, Iterable):
        raise wrong(name, form, value)
    try:
        return tuple(value)
    except TypeError:  # an array without axes
        raise wrong(name, form, value) from None


def checked_mapping(name: str, value: object, form: str) -> dict[Any, Any]:
    """Return a mapping as a dict; `InvalidArgument` for anything else."""
    if isinstance(value, Mapping):
        return dict(value)
    raise wrong(name, form, value)


def checked_positive(name: str, value: object, unit: str) -> float:
    """Return a positive, finite number; `InvalidArgument` for anything else."""
    number = number_of(value)
    if number is None or not 0 < number < float("inf"):
        raise wrong(name, f"a positive number of {unit}", value)
    return number


def number_of(value: object) -> float | None:
    """Return a number as a float; None for what is no real number, a truth value, or too large for a float."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or _is_complex(value):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_complex(value: object) -> bool:
    """Whether this is a complex number: numpy's have a float, which is without the imaginary part."""
    return isinstance(value, Complex) and not isinstance(value, Real)


def whole(value: object) -> int | None:
    """Return a whole number, Python's or numpy's, as an int; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that is what is looked at
    except TypeError:
        return None


def checked_length(n: object) -> int:
    """Return the length of an axis; `InvalidArgument` for anything that cannot be one."""
    length = whole(n)
    if length is None or length < 1:
        raise InvalidArgument(f"each axis of a slot needs a length of at least 1, not {quoted(n)}")
    return length


def unit_texts(units: object) -> dict[str, str]:
    """Return units by field; each of them is a text."""
    found = checked_mapping("units", units, UNITS)
    for name, unit in found.items():
        if not isinstance(unit, str):
            raise InvalidArgument(f"the unit of {name!r} must be text, not {quoted(unit)}")
    return found


def check_hints(
    *, shape: object = None, dims: object = None, units: object = None, attrs: object = None, **_others: object
) -> None:
    """Refuse what `Schema.infer` would refuse whatever a slot looks like, before there is an example of one.

    Raises
    ------
    InvalidArgument
        One of them is nothing of its kind.
    """
    hinted(shape, dims, units, attrs)


def hinted(shape: Any, dims: Any, units: Any, attrs: Any) -> dict[str, Any]:
    """Return what `Schema.infer` was told besides the dtype, as the arguments of `Schema`."""
    if isinstance(shape, bool) or whole(shape) is not None:
        shape = (shape,)
    if isinstance(dims, str):
        dims = (dims,)
    if isinstance(units, str):
        units = None  # for each field that there will be
    return {
        "shape": () if shape is None else tuple(map(checked_length, checked_several("shape", shape, SHAPE))),
        "dims": () if dims is None else checked_several("dims", dims, DIMS),
        "units": {} if units is None else unit_texts(units),
        "attrs": {} if attrs is None else checked_mapping("attrs", attrs, ATTRS),
    }
