"""A table or a dataset of somebody else's is replayed with its values and times, or refused with the row's number."""

from __future__ import annotations

import datetime
import itertools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xarray as xr
from hypothesis import example, given

import labhub
from labhub.errors import InvalidArgument
from labhub.hub import Hub
from tests.property.journey import replayed
from tests.property.profile import quick

NUMBERS = itertools.count()
STEP = 125_000_000
"""Times are multiples of an eighth of a second, which all forms of them can hold exactly."""
PER = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True)
class Table:
    """One column of times and one of values.

    Attributes
    ----------
    times : list of int or None
        In nanoseconds since the epoch; None is missing.
    form : str
        What the times are: ``"float"`` seconds, ``"int ms"``, ``"M8[us]"``, ``"m8[s]"``, ``"text"``, ``"zone"``.
    values : list
        Python numbers; None is missing.
    kind : str
        The pandas dtype of the values.
    source : {"frame", "index", "csv", "parquet", "arrow", "dataset"}
    """

    times: list[int | None]
    form: str
    values: list[Any]
    kind: str
    source: str


FORMS = (
    *("float", "int s", "int ms", "int us", "int ns", "M8[s]", "M8[ms]", "M8[us]", "M8[ns]", "m8[s]", "m8[ns]"),
    *("text", "zone"),
)
SOURCES = ("frame", "index", "csv", "parquet", "arrow", "dataset")
KINDS = {
    "float": ("float64", "float32", "Float64", "double[pyarrow]", "Sparse[float64]", "category", "object"),
    "int": ("int64", "uint8", "Int64", "UInt8", "int64[pyarrow]", "Sparse[int64]", "category", "object"),
    "bool": ("bool", "boolean", "bool[pyarrow]", "object"),
    "text": ("str", "string", "object", "category", "string[pyarrow]"),
}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    n = draw(st.integers(1, 4))
    form = draw(st.sampled_from(FORMS))
    whole = 8 if form in ("int s", "M8[s]", "m8[s]") else 1
    dated = 8 * 1_767_225_600
    base = dated if form.startswith("int") else draw(st.sampled_from((0, 0, dated, -8 * 3600)))
    moment = st.one_of(st.integers(-20, 20), st.integers(-20, 20), st.none())
    times = [None if k is None else (base + k * whole) * STEP for k in draw(st.lists(moment, min_size=n, max_size=n))]
    what = draw(st.sampled_from(sorted(KINDS)))
    kind = draw(st.sampled_from(KINDS[what]))
    item: st.SearchStrategy[Any] = {
        "float": st.one_of(st.sampled_from([0.5, -1.0, math.inf]), st.integers(-99, 99).map(float)),
        "int": st.one_of(st.integers(0, 255), st.sampled_from([255, 2**53 + 1, 2**63 - 1])),
        "bool": st.booleans(),
        "text": st.sampled_from(["a", "NA", "é", "1.5", "stim/left", "true"]),
    }[what]
    if kind in ("uint8", "UInt8"):
        item = st.integers(0, 255)
    may_miss = kind in ("Float64", "Int64", "UInt8", "boolean", "double[pyarrow]", "int64[pyarrow]", "bool[pyarrow]")
    values = draw(st.lists(st.one_of(item, item, item, st.none()) if may_miss else item, min_size=n, max_size=n))
    if what == "text":
        values[0] = "a"  # a CSV file of nothing but "NA" or "1.5" has no text
    sources = ("frame", "index", "csv", "dataset") if "Sparse" in kind else SOURCES
    return Table(times, form, values, kind, draw(st.sampled_from(sources)))


def times_of(t: Table) -> Any:
    """Return the times in their form."""
    match t.form.split():
        case ["float"]:
            return [math.nan if k is None else k / 10**9 for k in t.times]
        case ["int", unit]:
            whole = [None if k is None else k // PER[unit] for k in t.times]
            return whole if None not in whole else pd.array(whole, "Int64")
        case ["text"]:
            zero = datetime.datetime(1970, 1, 1)
            return [
                "" if k is None else (zero + datetime.timedelta(microseconds=k // 1000)).isoformat() for k in t.times
            ]
        case ["zone"]:
            return pd.to_datetime(pd.Series(t.times, dtype="Int64"), unit="ns", utc=True).dt.tz_convert("Europe/Berlin")
        case [code]:
            unit = np.datetime_data(np.dtype(code))[0]
            counts = [np.iinfo("i8").min if k is None else k // PER[unit] for k in t.times]
            return np.array(counts, "i8").view(code)
    raise AssertionError(t.form)


def source_of(t: Table, folder: Path) -> Any:
    """Return what is replayed."""
    frame = pd.DataFrame({"time": times_of(t), "v": pd.Series(t.values, dtype=t.kind)})
    match t.source:
        case "frame":
            return frame
        case "index":
            return frame.set_index("time")
        case "csv":
            frame.to_csv(folder / "t.csv", index=False)
            return folder / "t.csv"
        case "parquet":
            frame.to_parquet(folder / "t.parquet")
            return folder / "t.parquet"
        case "arrow":
            return pa.Table.from_pandas(frame)
    return xr.Dataset({"v": ("time", frame["v"].to_numpy())}, {"time": frame["time"].to_numpy()})


def may_refuse(t: Table) -> bool:
    """Whether a time is missing, or a value that has no NaN, or a CSV file has pandas' words for a duration."""
    exact = any(isinstance(v, bool) or (isinstance(v, int) and v > 2**53) for v in t.values)
    gone = all(v is None for v in t.values)
    return None in t.times or (None in t.values and (exact or gone)) or (t.source == "csv" and t.form[0] in "zm")


@quick
@example(t=Table([0, STEP, 2 * STEP], "float", [1.0, 2.0, 3.0], "float64", "frame"))
@example(t=Table([-STEP, 0, STEP], "float", [1.0, 2.0, 3.0], "float64", "dataset"))
@example(t=Table([0, 2 * 10**9], "m8[s]", [1.0, 2.0], "float64", "dataset"))
@example(t=Table([1_767_225_600 * 10**9, 1_767_225_601 * 10**9], "int ms", [1.0, 2.0], "float64", "csv"))
@example(t=Table([1_767_225_600 * 10**9, 1_767_225_600_500_000_000], "text", [1.0, 2.0], "float64", "csv"))
@example(t=Table([0, None, STEP], "float", [1.0, 2.0, 3.0], "float64", "csv"))
@example(t=Table([0, STEP], "M8[us]", [1, 2], "Int64", "parquet"))
@example(t=Table([0, STEP], "M8[us]", [True, False], "boolean", "frame"))
@example(t=Table([0, STEP], "M8[us]", [1.0, 2.0], "Sparse[float64]", "frame"))
@given(t=tables())
def test_a_table_is_replayed_as_it_is_or_refused(hub: Hub, t: Table) -> None:
    refused = None
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source = source_of(t, Path(folder))
        try:
            found = replayed(hub, source, len(t.times), f"t{next(NUMBERS)}")
        except InvalidArgument as error:
            refused = str(error)
    if refused is not None:
        assert may_refuse(t), f"refused: {refused}"
        if None in t.times and t.form != "zone" and not t.form.startswith("int"):
            row = t.times.index(None) + (2 if t.source == "csv" else 0)
            assert str(row) in refused, f"row {row} is not named: {refused}"
        return
    assert None not in t.times, "a slot without a time"
    order = np.argsort(np.array(t.times), kind="stable")
    assert found.timestamp_ns.tolist() == [t.times[k] for k in order]
    column = found.data["v"] if found.data.dtype.names else found.data
    for got, k in zip(column.tolist(), order, strict=True):
        wanted = t.values[k]
        assert (got != got) if wanted is None else got == wanted, f"{got!r} instead of {wanted!r}"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("first_ns", [0, 1_767_225_600 * 10**9])
def test_integers_of_a_unit_that_is_told(hub: Hub, unit: Any, first_ns: int) -> None:
    frame = pd.DataFrame({"time": [first_ns // PER[unit], first_ns // PER[unit] + 1], "v": [1.0, 2.0]})
    with labhub.replay(frame, hub=hub, name=f"t{next(NUMBERS)}", speed=None, time_unit=unit) as player:
        with hub.consumer(player.channels[0], mode="lossless", start="oldest") as c:
            times = [int(t) for batch in c.batches(timeout=5) for t in batch.timestamp_ns]
    assert times == [first_ns, first_ns + PER[unit]]
