"""Times of rows, in whatever form a table or a dataset has them, as nanoseconds since the epoch; or a clear refusal."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument
from labhub.schema import TIME
from labhub.words import quoted

TimeUnit = Literal["s", "ms", "us", "ns"]
Where = Callable[[int], str]
"""Says in a user's words which row the k-th one is."""

NS_PER: dict[TimeUnit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
UNITS_OF: dict[str, TimeUnit] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), "ns"),
}
"""What people write as the unit of a time."""
SECONDS_OF = {
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}
"""Longer units of a time, in seconds."""
LIMIT = 2**63 - 1
"""Most nanoseconds before or after 1970, which is the year 1677 or 2262; the number below -LIMIT stands for no time."""
RANGE = "times lie between 1677-09-21 and 2262-04-11"
SINCE, UNTIL = 946_684_800, 4_102_444_800
"""2000 and 2100 (in seconds): an integer that is a time of these years in one unit is none of them in another."""
CHOICES = "time_unit='s', 'ms', 'us' or 'ns' says what they are"

_NOTHING = ("", "nan", "nat", "na", "null", "none", "n/a", "<na>")
"""What stands in a table for a time that is missing."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_DATE = re.compile(r"\d{4}[-/]?\d{1,2}([-/]?\d{1,2}([T ].*)?)?", re.ASCII)


def check_unit(unit: object) -> None:
    """Raise `InvalidArgument` unless this is a unit of times, or None."""
    if unit is not None and unit not in NS_PER:
        raise InvalidArgument(f"time_unit is 's', 'ms', 'us' or 'ns', not {unit!r}")


def in_unit(values: NDArray[Any], said: str) -> tuple[NDArray[Any], TimeUnit | None]:
    """Return numbers in a unit that `times_ns` takes, and that unit; None if nothing is said of it.

    Parameters
    ----------
    values : ndarray of shape (n,)
    said : str
        What stands beside them as their unit, such as ``"ms"`` or ``"Hours"``.

    Raises
    ------
    InvalidArgument
        That is no unit of a time.
    """
    word = said.strip()
    word = word.lower() if len(word) != 2 else word  # Ms is no ms
    if not word:
        return values, None
    if word in UNITS_OF:
        return values, UNITS_OF[word]
    if word not in SECONDS_OF:
        raise InvalidArgument(f"the times have the unit {quoted(said)}, which is none of time; {CHOICES}")
    return values.astype(object) * SECONDS_OF[word], "s"  # objects of Python do not overflow


def times_ns(values: Any, where: Where, unit: TimeUnit | None = None) -> NDArray[np.int64]:
    """Return times as nanoseconds since the epoch (UTC).

    Dates are UTC where they name no time zone. Fractional numbers are seconds, and integers what their size tells,
    unless `unit` says it. Durations count from 1970 on, as numbers do.

    Parameters
    ----------
    values : ndarray, pandas.Series or pandas.Index of shape (n,)
    where : callable
        Of a row's number (from 0 on): how a user finds it.
    unit : {"s", "ms", "us", "ns"}, optional
        Unit of numbers.

    Raises
    ------
    InvalidArgument
        A time is missing, out of range or unreadable, or the unit of integers is unclear. The message names the row.
    """
    plain = values if isinstance(values, np.ndarray) else _plain(values, where)
    if unit is not None and plain.dtype.kind in "Mm":
        raise InvalidArgument(f"the times are dates or durations already ({plain.dtype}); leave time_unit={unit!r} out")
    match plain.dtype.kind:
        case "M":
            return _of_dates(plain, where)
        case "m":
            return _of_durations(plain, where)
        case "i" | "u":
            return _of_integers(plain, where, unit)
        case "f":
            return _of_floats(plain, where, unit)
        case "O" | "U" | "T":
            return _of_objects(plain.astype(object), where, unit)
    raise InvalidArgument(f"times are dates, or numbers of seconds, not {plain.dtype}")


def _plain(values: Any, where: Where) -> NDArray[Any]:
    """Return what pandas holds as a numpy array: of dates in UTC, durations, numbers or objects."""
    import pandas as pd

    series = pd.Series(values).reset_index(drop=True)
    kind = series.dtype
    if isinstance(kind, pd.SparseDtype):
        series = pd.Series(np.asarray(series))
    elif isinstance(kind, pd.CategoricalDtype):
        return _plain(series.astype(kind.categories.dtype), where) if not series.isna().any() else _gap(series, where)
    elif isinstance(kind, pd.IntervalDtype):
        raise InvalidArgument("times are intervals; give one end of each, as in df['time'] = df['time'].array.left")
    elif isinstance(kind, pd.PeriodDtype):
        far = (series.dt.year < 1678) | (series.dt.year > 2261)  # older versions of pandas raise then
        _refuse_first(far.to_numpy(), where, lambda k: f"{series[k]} is out of range", RANGE)
        series = series.dt.start_time
    elif isinstance(kind, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    elif isinstance(kind, pd.ArrowDtype):
        from labhub.replaying.arrow import arrow_of, plain_times

        return plain_times(arrow_of(series), where)
    if isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    if series.isna().any():
        _gap(series, where)
    return cast("NDArray[Any]", series.to_numpy(getattr(series.dtype, "numpy_dtype", object)))


def _gap(series: Any, where: Where) -> NoReturn:
    refuse_missing(int(np.flatnonzero(series.isna().to_numpy())[0]), where)


def refuse(row: int, where: Where, what: str, advice: str) -> NoReturn:
    """Raise `InvalidArgument` about the time of one row."""
    raise InvalidArgument(f"{where(row)}, column {TIME!r}: {what}; {advice}")


def refuse_missing(row: int, where: Where) -> NoReturn:
    """Raise `InvalidArgument` about a row without a time."""
    refuse(row, where, "the time is missing", "a slot needs one: give it one, or leave the row out")


def _refuse_first(bad: NDArray[np.bool_], where: Where, words: Callable[[int], str], advice: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        refuse(row, where, words(row), advice)


def _of_dates(dates: NDArray[np.datetime64], where: Where) -> NDArray[np.int64]:
    if np.datetime_data(dates.dtype)[0] == "generic":
        raise InvalidArgument(f"times of {dates.dtype} have no unit; give them one, as in times.astype('M8[ns]')")
    if (missing := np.isnat(dates)).any():
        refuse_missing(int(np.argmax(missing)), where)
    if np.datetime_data(dates.dtype)[0] not in ("ns", "ps", "fs", "as"):  # these cannot hold a date out of range
        years = dates.astype("M8[Y]").astype(np.int64) + 1970
        outside = (years < 1677) | (years > 2262)
        if not outside.any():
            micros = dates.astype("M8[us]").astype(np.int64)
            outside = (micros < -(LIMIT // 1000)) | (micros > LIMIT // 1000)
        _refuse_first(outside, where, lambda k: f"{dates[k]} is out of range", RANGE)
    return dates.astype("M8[ns]").astype(np.int64)


def _of_durations(durations: NDArray[np.timedelta64], where: Where) -> NDArray[np.int64]:
    if np.datetime_data(durations.dtype)[0] in ("generic", "Y", "M"):
        raise InvalidArgument(f"times of {durations.dtype} have no certain length; give them one, as 'm8[s]' has")
    if (missing := np.isnat(durations)).any():
        refuse_missing(int(np.argmax(missing)), where)
    per = int(np.ones(1, durations.dtype).astype("m8[ns]").astype(np.int64)[0]) or 1  # 1 for what is below it
    numbers = durations.astype(np.int64)
    outside = (numbers > LIMIT // per) | (numbers < -(LIMIT // per))
    _refuse_first(outside, where, lambda k: f"{durations[k]} is out of range", RANGE)
    return durations.astype("m8[ns]").astype(np.int64)


def _of_integers(numbers: NDArray[Any], where: Where, unit: TimeUnit | None) -> NDArray[np.int64]:
    if not len(numbers):
        return np.empty(0, np.int64)
    per = NS_PER[unit or _unit_of(int(numbers.min()), int(numbers.max()))]
    outside: NDArray[np.bool_] = (
        (numbers > LIMIT // per) if numbers.dtype.kind == "u" else _beyond(numbers, LIMIT // per)
    )
    _refuse_first(outside, where, lambda k: f"{numbers[k]} {unit or 's'} is out of range", RANGE)
    return np.asarray(numbers.astype(np.int64) * per)


def _beyond(numbers: NDArray[Any], limit: int) -> NDArray[np.bool_]:
    wide = numbers.astype(np.int64)
    return (wide > limit) | (wide < -limit)


def _unit_of(least: int, most: int) -> TimeUnit:
    """Tell the unit of integers that are times of this century in one unit only."""
    for unit, per in NS_PER.items():
        scale = 10**9 // per
        if SINCE * scale <= least and most < UNTIL * scale:
            return unit
    between = f"{least}" if least == most else f"{least} to {most}"
    raise InvalidArgument(f"the times are integers ({between}) of an unknown unit; {CHOICES}")


def _of_floats(numbers: NDArray[Any], where: Where, unit: TimeUnit | None) -> NDArray[np.int64]:
    if np.isnan(numbers).any():
        refuse_missing(int(np.argmax(np.isnan(numbers))), where)
    per = NS_PER[unit or "s"]
    wide = numbers if numbers.dtype.itemsize > 8 else numbers.astype(np.float64)
    outside = ~(np.abs(wide) < LIMIT / per)  # also what is infinite
    hint = RANGE if unit else f"{RANGE}; numbers are seconds, or what time_unit='ms', 'us' or 'ns' says"
    _refuse_first(outside, where, lambda k: f"{numbers[k]} {unit or 's'} is out of range", hint)
    whole = np.floor(wide)  # apart from the rest, so that a time of now is not rounded twice
    return np.asarray(whole.astype(np.int64) * per + np.round((wide - whole) * per).astype(np.int64))


def _of_objects(objects: NDArray[Any], where: Where, unit: TimeUnit | None) -> NDArray[np.int64]:
    import pandas as pd

    missing = np.asarray(pd.isna(objects))
    if missing.any():
        refuse_missing(int(np.argmax(missing)), where)
    items = objects.tolist()
    kinds = {kind: _kind_of(items[k]) for k, kind in _firsts(map(type, items))}
    first = kinds[type(items[0])] if items else "number"
    if len(set(kinds.values())) > 1 or not first:
        row = next(k for k, item in enumerate(items) if kinds[type(item)] != first or not first)
        refuse(row, where, f"{items[row]!r} is no {first or 'time'}", "times are all dates, or all numbers")
    match first:
        case "text":
            return _of_texts([str(item).strip() for item in items], where, unit)
        case "number":
            return _of_numbers(items, where, unit)
    if unit is not None:
        raise InvalidArgument(f"the times are dates or durations already; leave time_unit={unit!r} out")
    if first == "duration":
        return _each(items, lambda part: pd.to_timedelta(pd.Series(part, dtype=object)).to_numpy(), where)
    return _each(items, dates_of, where)


def _firsts(types: Iterable[type]) -> list[tuple[int, type]]:
    """Return each type with the place at which it comes first."""
    found: dict[type, int] = {}
    for k, kind in enumerate(types):
        found.setdefault(kind, k)
    return [(k, kind) for kind, k in found.items()]


def _kind_of(item: Any) -> str:
    if isinstance(item, str):
        return "text"
    if isinstance(item, datetime.timedelta | np.timedelta64):
        return "duration"
    if isinstance(item, datetime.date | np.datetime64):  # a datetime is a date, too
        return "date"
    if isinstance(item, int | float | np.integer | np.floating | Decimal | Fraction) and not isinstance(item, bool):
        return "number"
    if hasattr(item, "calendar"):
        raise InvalidArgument(
            f"the times are dates of cftime, calendar {item.calendar!r}, such as {item}; "
            "make them plain dates: ds.convert_calendar('standard', use_cftime=False)"
        )
    return ""


def dates_of(items: Sequence[Any]) -> NDArray[Any]:
    """Return dates of Python, NumPy or pandas as dates of NumPy, in UTC; None is NaT.

    Raises
    ------
    ValueError, TypeError, OverflowError
    """
    import pandas as pd

    if {*map(type, items)} <= {datetime.date, datetime.datetime, type(None)}:  # also beyond the years of nanoseconds
        return np.array([_naive(item) for item in items], "M8[us]")
    dates = pd.to_datetime(pd.Series(list(items), dtype=object), utc=True)
    return cast("NDArray[Any]", dates.dt.tz_localize(None).to_numpy())


def _each(items: Sequence[Any], convert: Callable[[Sequence[Any]], NDArray[Any]], where: Where) -> NDArray[np.int64]:
    """Convert all items at once; where that fails, one by one, in order to name the one that is to blame."""
    try:
        return times_ns(convert(items), where)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InvalidArgument):
            raise
    parts = []
    for row, item in enumerate(items):
        try:
            parts.append(times_ns(convert([item]), lambda _, row=row: where(row)))  # type: ignore[misc]
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, InvalidArgument):
                raise
            advice = f"dates begin with the year, as 2026-01-31T12:00:00; {RANGE}"
            refuse(row, where, f"{item!r} cannot be read as a date", advice)
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _naive(item: Any) -> Any:
    if isinstance(item, datetime.datetime) and item.tzinfo is not None:
        return item.astimezone(datetime.UTC).replace(tzinfo=None)
    return item


def _of_texts(texts: Sequence[str], where: Where, unit: TimeUnit | None) -> NDArray[np.int64]:
    numeric = bool(texts) and _NUMBER.fullmatch(texts[0]) is not None
    pattern = _NUMBER if numeric else _DATE
    for row, text in enumerate(texts):
        if not pattern.fullmatch(text):
            if text.lower() in _NOTHING:
                refuse_missing(row, where)
            what = "number" if numeric else "date"
            advice = "times are all dates, which begin with the year (2026-01-31T12:00:00), or all numbers"
            refuse(row, where, f"{text!r} cannot be read as a {what}", advice)
    if numeric:
        exact = all(_INTEGER.fullmatch(text) for text in texts)
        return _of_numbers([int(text) if exact else Decimal(text) for text in texts], where, unit)
    if unit is not None:
        raise InvalidArgument(f"the times are dates already; leave time_unit={unit!r} out")
    return _each(texts, _of_iso, where)


def _of_iso(texts: Sequence[str]) -> NDArray[Any]:
    import pandas as pd

    zulu = [text[:-1] + "Z" if text[-1] == "z" else text for text in texts]
    dates = pd.to_datetime(pd.Series(zulu, dtype=object), utc=True, format="ISO8601")
    return cast("NDArray[Any]", dates.dt.tz_localize(None).to_numpy())


def _of_numbers(items: Sequence[Any], where: Where, unit: TimeUnit | None) -> NDArray[np.int64]:
    """Convert numbers of Python, which are exact."""
    for row, item in enumerate(items):
        if not abs(item) <= LIMIT:  # also infinite, and so large that a fraction of it would fill the memory
            refuse(row, where, f"{item} is out of range", RANGE)
    whole = all(isinstance(item, int | np.integer) for item in items)
    if whole and unit is None and items:
        unit = _unit_of(int(min(items)), int(max(items)))
    per = NS_PER[unit or "s"]
    found = [_times(item, per) for item in items]
    for row, number in enumerate(found):
        if abs(number) > LIMIT:
            refuse(row, where, f"{items[row]} {unit or 's'} is out of range", RANGE)
    return np.array(found, np.int64)


def _times(item: Any, per: int) -> int:
    if isinstance(item, Decimal):
        return int((item * per).to_integral_value())
    number = int(item) if isinstance(item, np.integer) else float(item) if isinstance(item, np.floating) else item
    return number * per if isinstance(number, int) else round(Fraction(number) * per)
