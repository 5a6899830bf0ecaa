"""Dates and durations as integers of a known unit, and in units that other libraries can hold, without a change.

NumPy counts them in any unit, from years to attoseconds, or in multiples of one (``M8[10ms]``). Others know seconds,
milli-, micro- and nanoseconds at most. A value goes from one unit to another exactly, or an error names it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument

DTYPE = "labhub_dtype"
"""Attribute of integers that are dates or durations: the dtype they have in NumPy, such as ``"datetime64[ps]"``."""
NAT = np.iinfo(np.int64).min
"""The integer behind NaT."""
CALENDAR = "proleptic_gregorian"
WORDS = {
    "D": "days",
    "h": "hours",
    "m": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
}
"""The units of CF (and of xarray), by NumPy's names of them."""
PER_UNIT_NS = {
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1000,
    "ns": 1,
}
FINE = ("s", "ms", "us", "ns")
"""The units of pandas, xarray and Arrow."""
IN_SECONDS = {"m": ("m", "h", "D", "W"), "M": ("m", "h", "D", "W", "M", "Y")}
"""The units, of durations and of dates, that are a whole number of seconds."""


def is_time(dtype: np.dtype[Any]) -> bool:
    """Whether it holds dates or durations."""
    return dtype.kind in "mM"


def name_of(dtype: np.dtype[Any]) -> str:
    """Return its name without its byte order, such as ``"datetime64[us]"``."""
    return str(dtype.newbyteorder("="))


def fine(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype in s, ms, us or ns in which all its values are whole; None if none is, as for ps or months."""
    unit, _ = np.datetime_data(dtype)
    if unit in FINE:
        return np.dtype(f"{dtype.kind}8[{unit}]")
    return np.dtype(f"{dtype.kind}8[s]") if unit in IN_SECONDS[dtype.kind] else None


def integers(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the integers behind dates or durations, in the machine's byte order; NaT is `NAT`."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("=")).view(np.int64)


def exact(values: NDArray[Any], dtype: np.dtype[Any], field: str) -> NDArray[Any]:
    """Return dates or durations in another unit.

    Raises
    ------
    InvalidArgument
        One of them has no place there; the message names it.
    """
    if values.dtype == dtype:
        return values
    before = integers(values)
    with np.errstate(all="ignore"):
        try:
            found = values.astype(dtype)
            changed = found.astype(values.dtype.newbyteorder("=")).view(np.int64) != before
        except OverflowError:
            changed = np.ones(before.shape, np.bool_)
    if changed.any():
        first = int(before[changed][0])
        raise InvalidArgument(
            f"the field {field!r} of {name_of(values.dtype)} holds {shown(first, values.dtype)}, which "
            f"{name_of(dtype)} cannot hold exactly; read it with batch.data, or give the channel another dtype"
        )
    return found


def cf_units(dtype: np.dtype[Any]) -> dict[str, str] | None:
    """Return CF's attributes of its integers; None if CF has no such unit."""
    unit, count = np.datetime_data(dtype)
    if unit not in WORDS or count != 1:
        return None
    if dtype.kind == "M":
        return {"units": f"{WORDS[unit]} since 1970-01-01", "calendar": CALENDAR}
    return {"units": WORDS[unit], "dtype": f"timedelta64[{unit if unit in FINE else 's'}]"}


def all_fit_ns(values: NDArray[np.int64], dtype: np.dtype[Any]) -> bool:
    """Whether integers of a dtype with `cf_units` are within what nanoseconds can hold: the years 1678 to 2261."""
    per_unit = PER_UNIT_NS[np.datetime_data(dtype)[0]]
    most = np.iinfo(np.int64).max // per_unit
    return per_unit == 1 or bool(((values == NAT) | ((values >= -most) & (values <= most))).all())


def shown(number: int, dtype: np.dtype[Any]) -> str:
    """Return the date or duration behind an integer as text; one that NumPy itself cannot write, as its number."""
    try:
        return str(np.int64(number).astype(dtype.newbyteorder("=")))
    except (ValueError, OverflowError):
        return str(number)
