"""Values of tables: each as it was, whatever pandas or Arrow call its type; what cannot be kept is named."""

from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import labhub
from labhub.errors import InvalidArgument, NotARecording
from labhub.hub import Hub
from tests.replaying.conftest import replayed

BIG = 2**53 + 1
NAN = float("nan")


def frame(**columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"time": 1.0 + np.arange(n), **{k: pd.Series(v) for k, v in columns.items()}})


def same(found: Any, expected: Any) -> bool:
    expected = np.asarray(expected)
    return bool(np.array_equal(found, expected, equal_nan=expected.dtype.kind in "fcmM"))


GOOD: list[tuple[Any, Any, str]] = [
    (pd.array([1, BIG], "Int64"), [1, BIG], "i8"),
    (pd.array([1, None], "Int64"), [1.0, NAN], "f8"),
    (pd.array([1, 255], "UInt8"), [1, 255], "u1"),
    (pd.array([True, False], "boolean"), [True, False], "?"),
    (pd.array([0.1, None], "Float64"), [0.1, NAN], "f8"),
    (pd.array([0.5, 1.5], "Float32"), [0.5, 1.5], "f4"),
    (pd.array(["a", "bcd"], "string"), ["a", "bcd"], "U3"),
    (["a", "°C µ"], ["a", "°C µ"], "U4"),
    (["", ""], ["", ""], "U1"),
    ([b"a", b"bc"], [b"a", b"bc"], "S2"),
    ([b"a\0", b"bc"], np.frombuffer(b"a\0bc", "V2"), "V2"),
    (pd.array([1, BIG], "int64[pyarrow]"), [1, BIG], "i8"),
    (pd.array([1, None], "int8[pyarrow]"), [1.0, NAN], "f8"),
    (pd.array([0.1, None], "double[pyarrow]"), [0.1, NAN], "f8"),
    (pd.array([True, False], "bool[pyarrow]"), [True, False], "?"),
    (pd.array(["a", "b"], "string[pyarrow]"), ["a", "b"], "U1"),
    (pd.arrays.SparseArray([0.0, 2.5]), [0.0, 2.5], "f8"),
    (pd.arrays.SparseArray([0, 3]), [0, 3], "i8"),
    (pd.Categorical(["on", "off"]), ["on", "off"], "U3"),
    (pd.Categorical([3, 7]), [3, 7], "i8"),
    (pd.Categorical([3, None]), [3.0, NAN], "f8"),
    (pd.Series([1, BIG], dtype=object), [1, BIG], "i8"),
    (pd.Series([1, 2**64 - 1], dtype=object), [1, 2**64 - 1], "u8"),
    (pd.Series([1, None], dtype=object), [1.0, NAN], "f8"),
    (pd.Series([1, 2.5], dtype=object), [1.0, 2.5], "f8"),
    (pd.Series([True, False], dtype=object), [True, False], "?"),
    ([1 + 2j, 3.0], [1 + 2j, 3.0], "c16"),
    ([Decimal("0.1"), Decimal("-2.50")], [0.1, -2.5], "f8"),
    ([Decimal("NaN"), Decimal("Infinity")], [NAN, np.inf], "f8"),
    (pd.array([Decimal("0.1"), None], pd.ArrowDtype(pa.decimal128(10, 2))), [0.1, NAN], "f8"),
    (np.array([1.5, np.inf], "f2"), [1.5, np.inf], "f2"),
    (np.array([1, 2], ">i4"), [1, 2], ">i4"),
    (np.array(["9999-12-31", "NaT"], "M8[us]"), np.array(["9999-12-31", "NaT"], "M8[us]"), "M8[us]"),
    (pd.to_timedelta([1, 2], unit="s").as_unit("ms"), np.array([1000, 2000], "m8[ms]"), "m8[ms]"),
    (pd.Series([dt.date(2026, 1, 1)] * 2, dtype=object), np.array(["2026-01-01"] * 2, "M8[us]"), "M8[us]"),
    (pd.array([dt.date(2500, 1, 1), None], "date32[pyarrow]"), np.array(["2500-01-01", "NaT"], "M8[D]"), "M8[D]"),
    (pd.array([dt.time(0, 0, 1)] * 2, "time32[s][pyarrow]"), np.array([1, 1], "m8[s]"), "m8[s]"),
    (pd.Series([np.arange(3), np.arange(3) + 1]), [[0, 1, 2], [1, 2, 3]], "i8"),
    ([[[1.0, 2.0]], [[3.0, 4.0]]], [[[1.0, 2.0]], [[3.0, 4.0]]], "f8"),
    ([["a", "b"], ["c", "dd"]], [["a", "b"], ["c", "dd"]], "U2"),
]


@pytest.mark.parametrize(("column", "expected", "dtype"), GOOD, ids=lambda x: f"{x!r:.50}".replace("\n", " "))
def test_a_column_keeps_its_values(hub: Hub, column: Any, expected: Any, dtype: str) -> None:
    found = replayed(hub, frame(v=column))
    assert found.schema.dtype["v"].base == np.dtype(dtype)
    assert same(found.data["v"], expected)


def test_integers_of_which_some_are_missing_are_said_to_be_floats_now(hub: Hub) -> None:
    with labhub.replay(frame(n=pd.array([1, None], "Int64")), hub=hub) as replay:
        assert replay.notes == {"replay": ("column 'n' is float64 now: integers are missing, and NaN stands for them",)}


REFUSED: list[tuple[Any, str]] = [
    (pd.array([BIG, None], "Int64"), "row 1, column 'v': an integer is missing; fill it"),
    (pd.array([BIG, None], "int64[pyarrow]"), "row 1, column 'v': an integer is missing"),
    (pd.array([None, True], "boolean"), "row 0, column 'v': a boolean is missing"),
    (pd.array([None, True], "bool[pyarrow]"), "row 0, column 'v': a boolean is missing"),
    ([2**64, 1], "row 0, column 'v': 18446744073709551616 needs more than 64 bits"),
    ([2**63, -1], "more than 64 bits"),
    ([BIG, 0.5], "row 0, column 'v': 9007199254740993 has more digits than float64"),
    ([Decimal("0.1234567890123456789"), Decimal(1)], "row 0, column 'v': 0.1234567890123456789 has more digits"),
    ([[1, 2], [1, 2, 3]], "row 1, column 'v': an array of shape"),
    ([[[1], [2, 3]], [[1], [2, 3]]], "column 'v': an array of shape"),
    ([[BIG, 0.5], [1, 2]], "row 0, column 'v': 9007199254740993 has more digits"),
    (pd.Categorical([True, None]), "row 1, column 'v': a boolean is missing"),
    (
        pd.array([[1, 2], [1]], pd.ArrowDtype(pa.list_(pa.int64()))),
        "row 1, column 'v': a list of 1 where others have 2",
    ),
]


@pytest.mark.parametrize(("column", "words"), REFUSED, ids=lambda x: f"{x!r:.50}".replace("\n", " "))
def test_a_value_that_would_change_is_refused_with_its_row(hub: Hub, column: Any, words: str) -> None:
    data = frame(good=[1, 2])
    data["v"] = pd.Series(column, dtype=object if isinstance(column, list) else None)
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(data, hub=hub)
    assert hub.channels() == []


LEFT_OUT: list[tuple[Any, str]] = [
    (["a", None], r"a value is missing \(row 1\); fill it"),
    (pd.array(["a", None], "string[pyarrow]"), "a value is missing"),
    ([None, None], "no values"),
    (["a", 1.5], "float and text"),
    ([[1, "a"], [2, "b"]], "integer and text"),
    ([[], []], "empty"),
    ([{}, {}], "dict"),
    (["a\0", "b"], "NUL"),
    (["a" * 5000, "b"], "5000 characters"),
    (pd.period_range("2026", periods=2, freq="M"), "period"),
    (pd.interval_range(0, 2), "interval"),
]


@pytest.mark.parametrize(("column", "words"), LEFT_OUT, ids=lambda x: f"{x!r:.40}".replace("\n", " "))
def test_a_column_that_no_slot_can_have_is_left_out_and_named(
    hub: Hub, caplog: pytest.LogCaptureFixture, column: Any, words: str
) -> None:
    data = frame(good=[1, 2], odd=column)
    with caplog.at_level(logging.WARNING, "labhub.replaying"):
        found = replayed(hub, data)
    assert found.schema.fields == ("good",)
    (note,) = found.schema.attrs["replay_notes"]
    assert note.startswith("column 'odd' is left out: ")
    assert words.replace("\\", "") in note
    assert note in caplog.text


def test_a_table_without_any_column_that_can_be_kept_is_refused(hub: Hub) -> None:
    with pytest.raises(InvalidArgument, match=r"no column that could be replayed.*'odd' is left out"):
        labhub.replay(frame(odd=[{}, {}]), hub=hub)
    with pytest.raises(InvalidArgument, match="none besides 'time'"):
        labhub.replay(pd.DataFrame({"time": [1.0]}), hub=hub)


def test_dates_with_a_time_zone_are_in_utc_and_say_so(hub: Hub) -> None:
    data = frame(when=pd.to_datetime(["2026-01-01T01:00:00"] * 2).tz_localize("Europe/Berlin"))
    found = replayed(hub, data)
    assert (found.data["when"] == np.datetime64("2026-01-01T00:00:00")).all()
    assert "Europe/Berlin" in found.schema.attrs["replay_notes"][0]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["time", "v", "v"], "'v' is there more than once"),
        (["time", 1, "1"], "'1' is there more than once"),
        (["time", "v", ""], "'' cannot name a field"),
        (["time", "v", None], "cannot name a field"),
        (["time", "v", 1.5], "1.5 cannot name a field"),
        (["time", "v", True], "True cannot name a field"),
        (pd.MultiIndex.from_tuples([("time", ""), ("v", "x"), ("v", "y")]), "cannot name a field"),
    ],
)
def test_names_of_columns_that_cannot_be_fields(hub: Hub, columns: Any, words: str) -> None:
    data = pd.DataFrame([[0.5, 1.0, 2.0]])
    data.columns = pd.Index(columns) if isinstance(columns, list) else columns
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(data, hub=hub)


def test_columns_that_are_numbered_are_fields_of_that_name(hub: Hub) -> None:
    found = replayed(hub, pd.DataFrame([[1.0, 2.0]], index=pd.Index([0.5], name="time")))
    assert found.data.tolist() == [(1.0, 2.0)]
    assert found.schema.fields == ("0", "1")


def test_notes_and_units_of_a_frame(hub: Hub) -> None:
    data = frame(p=[1.0, 2.0])
    data.attrs = {
        "units": {"p": "mbar"},
        "run": np.int64(42),
        "gain": np.nan,
        "odd": object(),
        "when": dt.date(2026, 1, 1),
    }
    schema = replayed(hub, data).schema
    assert schema.units == {"p": "mbar"}
    assert {k: schema.attrs[k] for k in ("run", "gain", "when")} == {"run": 42, "gain": "nan", "when": "2026-01-01"}
    assert schema.attrs["replay_notes"] == ["attribute 'odd' is left out: object is no plain value"]


def test_an_index_that_has_a_name_is_a_field(hub: Hub) -> None:
    found = replayed(hub, frame(v=[1, 2]).set_axis(pd.Index(["a", "b"], name="sample")))
    assert found.data["sample"].tolist() == ["a", "b"]
    assert found.timestamp_ns.tolist() == [10**9, 2 * 10**9]


def test_a_series_is_a_table_of_one_column(hub: Hub) -> None:
    series = pd.Series([1.0, 2.0], pd.to_datetime(["2026-01-01", "2026-01-02"]), name="p")
    assert replayed(hub, series).data["p"].tolist() == [1.0, 2.0]


def test_a_row_is_named_by_its_number_and_label(hub: Hub) -> None:
    data = frame(v=[1.0, 2.0]).set_axis(["a", "b"])
    data.loc["b", "time"] = np.nan
    with pytest.raises(InvalidArgument, match=r"row 1 \(counted from 0, index 'b'\), column 'time'"):
        labhub.replay(data, hub=hub)


@pytest.mark.parametrize(
    ("cells", "expected", "dtype"),
    [
        ([str(BIG), "1"], [BIG, 1], "i8"),
        (["20", ""], [20.0, NAN], "f8"),
        (["0.1", ""], [0.1, NAN], "f8"),
        (["18446744073709551615", "1"], [2**64 - 1, 1], "u8"),
        (["True", "False"], [True, False], "?"),
        (["NA", "b"], ["NA", "b"], "U2"),
        (["", "b"], ["", "b"], "U1"),
        (["20.5", "overload"], ["20.5", "overload"], "U8"),
        (["99999999999999999999", "1"], ["99999999999999999999", "1"], "U20"),
        (["2026-01-01", "2026-01-02"], ["2026-01-01", "2026-01-02"], "U10"),
        (["1.7976931348623157e308", "5e-324"], [1.7976931348623157e308, 5e-324], "f8"),
    ],
)
def test_cells_of_a_csv_file(hub: Hub, tmp_path: Path, cells: list[str], expected: Any, dtype: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"time,v\n0.5,{cells[0]}\n1.5,{cells[1]}\n")
    found = replayed(hub, path)
    assert found.schema.dtype["v"] == np.dtype(dtype)
    assert same(found.data["v"], expected)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (f"time,v\n0.5,{BIG}\n1.5,\n", InvalidArgument, "x.csv, line 3, column 'v': an integer is missing"),
        ("time,v\n0.5,inf\n1.5,1e400\n", InvalidArgument, "x.csv, line 3, column 'v': 1e400 is out of the range"),
        ("time,v,v\n0.5,1,2\n", InvalidArgument, "'v' is there more than once"),
        ("time,time\n0.5,1\n", InvalidArgument, "'time' is there more than once"),
        ("time;v\n0,5;1\n", InvalidArgument, "another character than a comma"),
        ("t,v\n0.5,1\n", InvalidArgument, "column or an index called 'time'.*'t', 'v'"),
        ("time,\n0.5,1\n", InvalidArgument, "'' cannot name a field"),
        ("", InvalidArgument, "called 'time'"),
        ("time,v\n0.5,1,2\n", NotARecording, "cannot be read as a table"),
        ("time,v\n0.5,1\n0.6,1,2,3\n", NotARecording, "cannot be read as a table"),
    ],
)
def test_a_csv_file_that_cannot_be_replayed(hub: Hub, tmp_path: Path, text: str, error: type, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(error, match=words):
        labhub.replay(path, hub=hub)
    assert hub.channels() == []


ARROW: list[tuple[pa.Array, Any]] = [
    (pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)), np.array([[1, 2], [3, 4]], "f4")),
    (pa.array([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.int8(), 1), 2)), np.array([[[1], [2]], [[3], [4]]], "i1")),
    (pa.array([[1.0, None], [3.0, 4.0]], pa.list_(pa.float64(), 2)), np.array([[1, np.nan], [3, 4]])),
    (pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)), np.array([[1, 2], [np.nan, np.nan]])),
    (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64())), np.array([[1, 2], [3, 4]])),
    (pa.array([["a", "bb"], ["c", ""]], pa.list_(pa.string(), 2)), np.array([["a", "bb"], ["c", ""]])),
    (pa.array([{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]), np.array([(1, "a"), (2, "b")], [("x", "i8"), ("y", "U1")])),
    (pa.array(["on", "off"]).dictionary_encode(), np.array(["on", "off"])),
    (pa.array([b"ab", b"cd"], pa.binary(2)), np.array([b"ab", b"cd"])),
    (pa.array([1, None], pa.timestamp("ms")), np.array([1, "NaT"], "M8[ms]")),
    (pa.array([1, 2], pa.duration("us")), np.array([1, 2], "m8[us]")),
    (pa.array(np.array([1.5, 2], "f2")), np.array([1.5, 2], "f2")),
    (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8.0).reshape(2, 2, 2)),
        np.arange(8.0).reshape(2, 2, 2),
    ),
]


@pytest.mark.parametrize(("column", "expected"), ARROW, ids=lambda x: f"{getattr(x, 'type', ''):}")
def test_a_table_of_arrow_keeps_its_columns_also_through_parquet(
    hub: Hub, tmp_path: Path, column: pa.Array, expected: Any
) -> None:
    table = pa.table({"time": pa.array([0.5, 1.5]), "v": column})
    pq.write_table(table, tmp_path / "x.parquet")
    sources = [table, tmp_path / "x.parquet"]
    try:
        pq.read_table(sources[1])
    except pa.ArrowInvalid:  # older versions cannot read what they write of a missing list
        del sources[1]
    for source in sources:
        found = replayed(hub, source)
        assert found.data.dtype["v"].base == expected.dtype
        same_values = (found.data["v"] == expected) | (found.data["v"] != found.data["v"])
        assert same_values.all()


def test_parts_of_a_table_of_arrow_are_read_where_they_are(hub: Hub) -> None:
    lists = pa.array([[k, k + 1] for k in range(6)], pa.list_(pa.float64(), 2))
    table = pa.table({"time": np.arange(6.0), "v": lists}).slice(2, 3)
    assert replayed(hub, table).data["v"].tolist() == [[2, 3], [3, 4], [4, 5]]
    chunks = pa.concat_tables([table, table])
    assert len(replayed(hub, chunks)) == 6


def test_lists_of_different_lengths_are_refused_by_name(hub: Hub, tmp_path: Path) -> None:
    table = pa.table({"time": [0.5, 1.5], "peaks": pa.array([[1.0], [1.0, 2.0]]), "v": [1, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(InvalidArgument, match="row 1, column 'peaks': a list of 2 where others have 1"):
        labhub.replay(tmp_path / "x.parquet", hub=hub)


@pytest.mark.parametrize("backend", [None, "pyarrow", "numpy_nullable"])
def test_a_frame_stored_as_parquet_replays_as_the_frame(hub: Hub, tmp_path: Path, backend: Any) -> None:
    data = pd.DataFrame(
        {"n": [1, BIG], "p": [0.5, NAN], "on": [True, False], "note": ["a", "b"], "kind": pd.Categorical(["x", "y"])},
        pd.to_datetime(["2026-01-01", "2026-01-02"]),
    )
    data = data if backend is None else data.convert_dtypes(dtype_backend=backend)
    data.attrs = {"run": 7}
    data.to_parquet(tmp_path / "x.parquet")
    for source in (data, tmp_path / "x.parquet"):
        found = replayed(hub, source)
        assert found.data["n"].tolist() == [1, BIG]
        assert found.data["on"].tolist() == [True, False]
        assert (found.data["note"].tolist(), found.data["kind"].tolist()) == (["a", "b"], ["x", "y"])
        assert same(found.data["p"].astype(float), [0.5, NAN])
        assert found.timestamp_ns.tolist() == pd.to_datetime(["2026-01-01", "2026-01-02"]).as_unit("ns").asi8.tolist()
        assert found.schema.attrs["run"] == 7


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pa.table({"t": [1.0], "v": [1]}), "called 'time'.*'t', 'v'"),
        (pa.table([[1.0], [1], [2]], ["time", "v", "v"]), "'v' is there more than once"),
        (pa.table({"time": [1.0, None], "v": [1, 2]}), "row 1, column 'time': the time is missing"),
        (pa.table({"time": pa.array([10**12], pa.timestamp("s")), "v": [1]}), "row 0.*out of range"),
        (pa.table({"time": pa.array([], pa.float64()), "v": pa.array([], pa.int64())}), "no rows"),
    ],
)
def test_a_table_of_arrow_that_cannot_be_replayed(hub: Hub, table: pa.Table, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(table, hub=hub)
    assert hub.channels() == []
