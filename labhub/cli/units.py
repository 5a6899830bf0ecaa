"""Numbers and times as people read them, in few characters."""

from __future__ import annotations


def short(number: float) -> str:
    """Put a number into at most six characters: ``0``, ``9.87``, ``12.3k``, ``4.56M``."""
    if number < 10 and number != int(number):
        return f"{number:.2f}"
    for limit, unit, scale in ((1e4, "", 1.0), (1e6, "k", 1e3), (1e9, "M", 1e6), (1e12, "G", 1e9), (1e15, "T", 1e12)):
        if number < limit:
            scaled = number / scale
            return f"{scaled:.0f}{unit}" if not unit or scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{number:.0e}"


def nbytes(number: float) -> str:
    """Put a size into words."""
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB"), (1e12, "GB")):
        if number < limit:
            scaled = number / limit * 1e3
            return f"{scaled:.0f} {unit}" if unit == "B" or scaled >= 99.95 else f"{scaled:.1f} {unit}"
    return f"{number / 1e12:.1f} TB"


def age(seconds: float) -> str:
    """Put an age into words."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    for limit, scale, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / scale:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def instant(ns: int) -> str:
    """Return a time in ns since the epoch as ISO 8601 in UTC, with all its nine digits."""
    from datetime import UTC, datetime

    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
