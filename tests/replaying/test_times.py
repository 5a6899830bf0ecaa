"""Times of tables and datasets, in every form that people have them: the right nanosecond, or the row that is wrong."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr

import labhub
from labhub.errors import InvalidArgument
from labhub.hub import Hub
from labhub.replaying.times import times_ns
from tests.replaying.conftest import replayed

NOW = 1_764_540_000
"""2025-11-30T22:00:00 (in seconds)."""
S = 10**9
UTC = dt.UTC
NEW_YEAR = int(dt.datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * S


def frame(times: Any) -> pd.DataFrame:
    return pd.DataFrame({"time": times, "v": np.arange(float(len(times)))})


GOOD: list[tuple[Any, list[int]]] = [
    (np.array([-0.1, 0.0, 0.1]), [-S // 10, 0, S // 10]),
    (np.array([NOW + 0.25]), [NOW * S + S // 4]),
    (np.array([0.1, 0.2], "f4"), [100_000_001, 200_000_003]),
    (np.array([NOW, NOW + 1]), [NOW * S, (NOW + 1) * S]),
    (np.array([NOW * 10**3 + 7]), [NOW * S + 7_000_000]),
    (np.array([NOW * 10**6 + 7], "u8"), [NOW * S + 7_000]),
    (np.array([NOW * 10**9 + 7]), [NOW * S + 7]),
    (pd.array([NOW * 10**3], "Int64"), [NOW * S]),
    (pd.array([0.0, 0.5], "Float64"), [0, S // 2]),
    (pd.array([NOW * 10**3], "int64[pyarrow]"), [NOW * S]),
    (pd.array([0.5], "double[pyarrow]"), [S // 2]),
    (pd.arrays.SparseArray([0.0, 1.0]), [0, S]),
    (["0.0", "0.1"], [0, S // 10]),
    ([f"{NOW}.123456789"], [NOW * S + 123_456_789]),
    ([str(NOW * 1000)], [NOW * S]),
    ([Decimal(f"{NOW}.123456789"), Decimal("-0.5")], [NOW * S + 123_456_789, -S // 2]),
    (np.array(["1970-01-01", "1969-12-31"], "M8[D]"), [0, -86_400 * S]),
    (np.array(["2262-04-11", "1677-09-22"], "M8[s]"), [9_223_286_400 * S, -9_223_286_400 * S]),
    (np.array([2**63 - 1, 1 - 2**63], "i8").view("M8[ns]"), [2**63 - 1, 1 - 2**63]),
    (pd.date_range("2026-01-01T01:00", periods=1, tz="Europe/Berlin"), [NEW_YEAR]),
    (pd.period_range("2026-01", periods=1, freq="M"), [NEW_YEAR]),
    (np.array([2, 4], "m8[s]"), [2 * S, 4 * S]),
    (np.array([-3], "m8[ms]"), [-3_000_000]),
    (pd.to_timedelta(["2s", "-1ns"]), [2 * S, -1]),
    ([dt.timedelta(seconds=2)], [2 * S]),
    ([dt.date(2026, 1, 1)], [NEW_YEAR]),
    ([dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))], [NEW_YEAR] * 2),
    ([dt.date(2026, 1, 1), pd.Timestamp("2026-01-01T00:00:00.000000007")], [NEW_YEAR, NEW_YEAR + 7]),
    (["2026-01-01T00:00:00", "2026-01-01T00:00:00.500000"], [NEW_YEAR, NEW_YEAR + S // 2]),
    (["2026-01-01T00:00:00.000000007Z", "2026-01-01 02:00:00+02:00", "2026-01-01"], [NEW_YEAR + 7, NEW_YEAR, NEW_YEAR]),
    (pd.array(["2026-01-01"], "string"), [NEW_YEAR]),
    (pd.Categorical(["2026-01-01", "2026-01-01"]), [NEW_YEAR] * 2),
    (pd.array([pd.Timestamp("2026-01-01")], "timestamp[us][pyarrow]"), [NEW_YEAR]),
    (pd.array([dt.date(2026, 1, 1)], "date32[pyarrow]"), [NEW_YEAR]),
    (pd.array([Decimal("1.5")], pd.ArrowDtype(pa.decimal128(10, 3))), [3 * S // 2]),
]


@pytest.mark.parametrize(("times", "expected"), GOOD, ids=lambda x: f"{x!r:.40}".replace("\n", " "))
def test_a_time_is_what_it_was(times: Any, expected: list[int]) -> None:
    assert times_ns(pd.Series(times), str).tolist() == expected
    index = pd.Index(times, name="time")
    assert times_ns(index, str).tolist() == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_unit_of_numbers_can_be_said(unit: Any) -> None:
    per = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    for numbers in (np.array([0, 10]), np.array([0.0, 10.0]), ["0", "10"], [Decimal(0), Decimal(10)]):
        assert times_ns(pd.Series(numbers), str, unit).tolist() == [0, 10 * per]


@pytest.mark.parametrize(
    ("said", "per"),
    [
        ("s", S),
        ("Seconds", S),
        (" MILLISECONDS ", 10**6),
        ("ms", 10**6),
        ("min", 60 * S),
        ("Hours", 3600 * S),
        ("d", 86_400 * S),
    ],
)
def test_the_unit_beside_the_times_counts(hub: Hub, said: str, per: int) -> None:
    times, field = [0.0, 0.5, 1.0], pa.field("time", pa.float64(), metadata={"units": said})
    table = pa.table([pa.array(times), pa.array([1, 2, 3])], pa.schema([field, pa.field("v", pa.int64())]))
    for numbers in (times, [0, 1, 2]):
        dataset = xr.Dataset({"v": ("time", [1, 2, 3])}, {"time": ("time", numbers, {"units": said})})
        expected = [round(t * per) for t in numbers]
        assert replayed(hub, dataset, name="beside.dataset").timestamp_ns.tolist() == expected
    assert replayed(hub, table, name="beside.table").timestamp_ns.tolist() == [0, per // 2, per]


@pytest.mark.parametrize("said", ["samples", "V", "Ms", "months"])
def test_a_unit_beside_the_times_that_is_none_of_time(hub: Hub, said: str) -> None:
    dataset = xr.Dataset({"v": ("time", [1, 2])}, {"time": ("time", [0.0, 1.0], {"units": said})})
    with pytest.raises(InvalidArgument, match=f"unit '{said}', which is none of time; time_unit='s'"):
        labhub.replay(dataset, hub=hub, name="unclear")
    with labhub.replay(dataset, hub=hub, name="clear", time_unit="ms"):
        pass


BAD: list[tuple[Any, str]] = [
    ([0.0, np.nan], "row 1, column 'time': the time is missing"),
    ([0.0, np.inf], "row 1, column 'time': inf s is out of range"),
    ([0.0, 1e12], r"row 1.* out of range.*time_unit='ms'"),
    (pd.array([NOW, None], "Int64"), "row 1.*missing"),
    (pd.array([NOW, None], "int64[pyarrow]"), "row 1.*missing"),
    (pd.to_datetime(["2026-01-01", None]), "row 1.*missing"),
    (["2026-01-01", " "], "row 1.*missing"),
    (["2026-01-01", None], "row 1.*missing"),
    (pd.Categorical(["2026-01-01", None]), "row 1.*missing"),
    ([0, 1, 2], r"integers \(0 to 2\) of an unknown unit; time_unit='s', 'ms', 'us' or 'ns'"),
    ([0, NOW], "unknown unit"),
    ([2**63 - 1], "unknown unit"),
    (["1", "2"], "unknown unit"),
    ([10**40, 1], "out of range"),
    (["1e999999"], "out of range"),
    (["2026-01-01", "01/02/2026"], "row 1.*'01/02/2026' cannot be read as a date; .* begin with the year"),
    (["31.12.2026"], "row 0.*cannot be read as a date"),
    (["now"], "row 0.*cannot be read as a date"),
    (["2026-02-30"], "row 0.*cannot be read as a date"),
    (["2026-01-01", "5"], "row 1.*cannot be read as a date"),
    (["0.5", "2026-01-01"], "row 1.*cannot be read as a number"),
    (["2026-01-01", "3000-01-01"], "row 1.*3000-01-01.*times lie between 1677-09-21 and 2262-04-11"),
    (np.array(["2026-01-01", "9999-12-31"], "M8[us]"), "row 1.*9999-12-31.* out of range"),
    (np.array(["0001-01-01"], "M8[D]"), "row 0.*out of range"),
    (np.array([2**62], "m8[s]"), "row 0.*out of range"),
    ([dt.datetime(2026, 1, 1), dt.date(2500, 1, 1)], "row 1.*out of range"),
    (pd.period_range("3000-01", periods=1, freq="M"), "row 0.*out of range"),
    ([dt.date(2026, 1, 1), 1.0], "row 1.*1.0 is no date"),
    ([[1], [2]], "row 0.*is no time"),
    ([True, False], "not bool"),
    ([1j], "not complex"),
    (pd.interval_range(0, 1), "intervals"),
]


@pytest.mark.parametrize(("times", "words"), BAD, ids=lambda x: f"{x!r:.40}".replace("\n", " "))
def test_a_time_that_cannot_be_is_refused_with_its_row(times: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        times_ns(pd.Series(times), lambda k: f"row {k}")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (np.array(["NaT"], "M8[ns]"), "missing"),
        (np.array([5], "m8[M]"), "no certain length"),
        (np.array([5], "m8"), "no certain length"),
        (np.array(["NaT"], "M8"), "no unit"),
        (np.array([2**62], "M8[D]"), "out of range"),
    ],
)
def test_dates_of_numpy_that_cannot_be(times: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        times_ns(times, str)


def test_dates_finer_than_nanoseconds_are_cut_to_these() -> None:
    assert times_ns(np.array([1999, -1], "M8[ps]"), str).tolist() == [1, -1]


def test_a_unit_is_for_numbers_only(hub: Hub, tmp_path: Path) -> None:
    for times in (pd.to_datetime(["2026-01-01"]), ["2026-01-01"], [dt.date(2026, 1, 1)], pd.to_timedelta(["1s"])):
        with pytest.raises(InvalidArgument, match="leave time_unit='ms' out"):
            labhub.replay(frame(times), hub=hub, time_unit="ms")
    with pytest.raises(InvalidArgument, match="time_unit is 's', 'ms', 'us' or 'ns', not 'min'"):
        labhub.replay(frame([0.0]), hub=hub, time_unit="min")  # type: ignore[arg-type]
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=tmp_path / "run.zarr"):
        p.write(1.0)
    with pytest.raises(InvalidArgument, match="a recording knows"):
        labhub.replay(tmp_path / "run.zarr", hub=hub, time_unit="ms")


def test_slots_before_at_and_after_1970_keep_their_times(hub: Hub) -> None:
    found = replayed(hub, frame([-0.1, 0.0, 0.1]))
    assert found.timestamp_ns.tolist() == [-S // 10, 0, S // 10]
    assert found.data["v"].tolist() == [0.0, 1.0, 2.0]


def test_a_dataset_from_1970_keeps_its_times(hub: Hub) -> None:
    times = np.array(["1969-12-31T23:59:59", "1970-01-01", "1970-01-01T00:00:01"], "M8[s]")
    found = replayed(hub, xr.Dataset({"v": ("time", [1, 2, 3])}, {"time": times}))
    assert found.timestamp_ns.tolist() == [-S, 0, S]


@pytest.mark.parametrize(
    ("times", "attrs", "expected"),
    [
        ([0.5, 1.5], {}, [S // 2, 3 * S // 2]),
        (np.array([NOW * 1000, NOW * 1000 + 1]), {}, [NOW * S, NOW * S + 10**6]),
        ([5, 6], {"units": "ms"}, [5 * 10**6, 6 * 10**6]),
        ([5, 6], {"units": "seconds since 1970-01-01"}, [5 * S, 6 * S]),
        (np.array([2, 4], "m8[s]"), {}, [2 * S, 4 * S]),
        (pd.period_range("2026-01-01", periods=2, freq="s"), {}, [NEW_YEAR, NEW_YEAR + S]),
        (["2026-01-01", "2026-01-01T00:00:01Z"], {}, [NEW_YEAR, NEW_YEAR + S]),
    ],
)
def test_times_of_a_dataset_are_read_as_those_of_a_table(
    hub: Hub, times: Any, attrs: dict, expected: list[int]
) -> None:
    dataset = xr.Dataset({"v": ("time", [1.0, 2.0])}, {"time": ("time", times, attrs)})
    assert replayed(hub, dataset).timestamp_ns.tolist() == expected


class Cf:
    """A date of another calendar, as the package cftime has it."""

    calendar = "360_day"

    def __str__(self) -> str:
        return "2026-02-30 00:00:00"


@pytest.mark.parametrize(
    ("times", "attrs", "words"),
    [
        (np.array([Cf(), Cf()], object), {}, "calendar '360_day'.*convert_calendar"),
        ([0, 1], {}, "unknown unit"),
        ([0.0, np.nan], {}, "element 1 along 'time'.*missing"),
        ([0.0, 1.0], {"units": "bananas since yesterday"}, "cannot be read as 'bananas since yesterday'"),
    ],
)
def test_times_of_a_dataset_that_cannot_be(hub: Hub, times: Any, attrs: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(xr.Dataset({"v": ("time", [1.0, 2.0])}, {"time": ("time", times, attrs)}), hub=hub)
    assert hub.channels() == []


def test_rows_are_replayed_in_the_order_of_their_times(hub: Hub) -> None:
    found = replayed(hub, frame([0.2, -0.1, 0.1, -0.1]))
    assert found.timestamp_ns.tolist() == [-S // 10, -S // 10, S // 10, S // 5]
    assert found.data["v"].tolist() == [1.0, 3.0, 2.0, 0.0]


def test_two_columns_of_times_must_agree(hub: Hub) -> None:
    both = frame([0.5, 1.5]).set_index(pd.Index([0.5, 1.5], name="time"))
    assert replayed(hub, both).timestamp_ns.tolist() == [S // 2, 3 * S // 2]
    with pytest.raises(InvalidArgument, match="both the index and a column"):
        labhub.replay(both.set_axis(pd.Index([0.0, 1.0], name="time")), hub=hub)
    twice = pd.concat([frame([0.0]), frame([1.0])], axis=1)
    with pytest.raises(InvalidArgument, match="'time' is there more than once"):
        labhub.replay(twice, hub=hub)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("2026-01-01T00:00:00,1\n2026-01-01T00:00:00.500000,2\n", [NEW_YEAR, NEW_YEAR + S // 2]),
        (f"{NOW}.123456789,1\n{NOW + 1},2\n", [NOW * S + 123_456_789, (NOW + 1) * S]),
        (f"{NOW}000,1\n{NOW}500,2\n", [NOW * S, NOW * S + S // 2]),
        ("1,1\n1.5,2\n", [S, 3 * S // 2]),
        ("1,1\n\n1.5,2\n", [S, 3 * S // 2]),
    ],
)
def test_times_of_a_csv_file(hub: Hub, tmp_path: Path, lines: str, expected: list[int]) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"time,v\n{lines}")
    assert replayed(hub, path).timestamp_ns.tolist() == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0.0,1\n,2\n", r"x.csv, line 3, column 'time': the time is missing"),
        ("0.0,1\n\n0.1,2\n,3\n", r"x.csv, line 5, column 'time'"),
        ('0.0,"a\nb"\nNaN,c\n', r"x.csv, line 4, column 'time'"),
        ("2026-01-31,1\n31/12/2026,2\n", r"x.csv, line 3, column 'time': '31/12/2026' cannot be read"),
    ],
)
def test_a_bad_time_of_a_csv_file_is_told_with_its_line(hub: Hub, tmp_path: Path, lines: str, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"time,v\n{lines}")
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(path, hub=hub)
    assert hub.channels() == []
