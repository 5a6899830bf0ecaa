"""Records, tables and whatever else holds many values: matched by name, converted without a loss."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labhub.datablock.producer import open_producer
from labhub.errors import InvalidArgument
from tests.datablock.ways_in import refused, schema_of, written, written_many

RECORD = [("p", "f4"), ("n", "i2"), ("v", "f8", (2,))]
NESTED = [("a", [("b", "f4"), ("c", "i2")]), ("d", [("e", "f8")], (2,))]
ROWS = [(1.5, 7, (1.0, 2.0)), (2.5, 8, (3.0, 4.0))]
MANY = np.array(ROWS, RECORD)


def rows_of(records: Any) -> list[tuple[Any, ...]]:
    return [(float(r["p"]), int(r["n"]), r["v"].tolist()) for r in np.atleast_1d(records)]


# --------------------------------------------------------------------------------------------------- records


def other_layouts() -> list[np.ndarray]:
    scattered = np.zeros(2, {"names": ["n", "v", "p"], "formats": ["i2", ("f8", 2), ">f4"], "offsets": [40, 8, 0]})
    turned = np.zeros(2, [("v", ">f8", 2), ("n", ">i2"), ("p", "f4")])
    for name in MANY.dtype.names or ():
        scattered[name] = turned[name] = MANY[name]
    aligned = np.array(ROWS, np.dtype(RECORD, align=True))
    wider = np.zeros(2, [*RECORD, ("w", "f8")])
    for name in MANY.dtype.names or ():
        wider[name] = MANY[name]
    return [aligned, scattered, turned, MANY.view(np.recarray), MANY.repeat(2)[::2], wider[["v", "n", "p"]]]


@pytest.mark.parametrize("records", other_layouts(), ids=["aligned", "scattered", "order", "rec", "steps", "picked"])
def test_records_are_matched_by_the_names_of_their_fields(records: np.ndarray) -> None:
    for schema in (schema_of(RECORD), schema_of(np.dtype(RECORD, align=True))):
        assert rows_of(written_many(schema, records)) == rows_of(MANY)
        assert rows_of(written_many(schema, list(records))) == rows_of(MANY)
        assert rows_of(written(schema, records[0])) == rows_of(MANY[0])
    assert rows_of(written(schema_of(RECORD, (2,)), records)) == rows_of(MANY)


def test_fields_inside_of_fields() -> None:
    records = np.zeros(2, [("d", [("e", ">f8")], (2,)), ("a", [("c", "i2"), ("b", "f4")])])
    records["a"]["b"], records["a"]["c"], records["d"]["e"] = [1, 2], [3, 4], [[5, 6], [7, 8]]
    data = written_many(schema_of(NESTED), records)
    assert data["a"].tolist() == [(1, 3), (2, 4)]
    assert data["d"]["e"].tolist() == [[5, 6], [7, 8]]
    one = written(schema_of(NESTED), {"a": records["a"][0], "d": records["d"][0]})
    assert one["a"].item() == (1, 3)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (np.zeros(2, [("p", "f8"), ("n", "i2"), ("v", "f8", 2)]), "field 'p': float32 here, float64 there"),
        (np.zeros(2, [("p", "f4"), ("n", "i2")]), "field 'v': .* here, missing there"),
        (np.zeros(2, [*RECORD, ("w", "f8")]), "field 'w': missing here"),
        (np.zeros(2, [("p", "f4"), ("n", "i2"), ("v", "f8", 3)]), "field 'v'"),
        (np.zeros(2), "field 'p'"),
        (np.zeros(0, [("p", "f4")]), "field 'n'"),
    ],
)
def test_records_with_other_fields(records: np.ndarray, message: str) -> None:
    refused(schema_of(RECORD), records, message, "write_many")


# --------------------------------------------------------------------------------------------------- tables

FRAME = pd.DataFrame({"b": [1.5, 2.5], "a": [1, 2]})
PAIRS = schema_of([("a", "i8"), ("b", "f4")])


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        FRAME.astype({"b": "f4"}).to_records(index=False),
        FRAME.convert_dtypes(),
        FRAME.astype({"a": "int64[pyarrow]"}),
        FRAME.astype(object),
        {"a": [1, 2], "b": [1.5, 2.5]},
        xr.Dataset({"a": ("t", [1, 2]), "b": ("t", [1.5, 2.5])}),
    ],
    ids=["frame", "records", "nullable", "arrow", "objects", "dict", "dataset"],
)
def test_tables_are_written_by_column(table: Any) -> None:
    assert written_many(PAIRS, table).tolist() == [(1, 1.5), (2, 2.5)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FRAME.assign(c=1), "field 'c': not in the schema"),
        (FRAME[["a"]], "field 'b': missing"),
        (FRAME.assign(a=[1.5, 2]), "field 'a' is int64"),
        (FRAME.assign(a=pd.array([1, None], "Int64")), "field 'a'"),
        (FRAME.assign(a=["x", None]), "field 'a'"),
        (FRAME.assign(b=[1, 1e300]), r"field 'b' is float32.* at \(1,\).*inf"),
        ({"a": [1, 2], "b": [1.0]}, "different lengths"),
        ({"a": 1, "b": 1.0}, "single value"),
    ],
)
def test_tables_that_do_not_fit(table: Any, message: str) -> None:
    refused(PAIRS, table, message, "write_many")


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2]),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1.0, 2.0], dtype="Sparse[float]"),
        xr.DataArray([1, 2]),
        np.array([1, 2], ">i2"),
        np.array([1, 2], object),
        range(1, 3),
        deque([1, 2]),
        (1, 2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_many_values_in_whatever_holds_them(values: Any) -> None:
    assert written_many(schema_of("f4"), values).tolist() == [1, 2]


@pytest.mark.parametrize("values", [7, "text", b"bytes", {1, 2}, (x for x in (1, 2)), None, object()])
def test_what_is_not_many(values: Any) -> None:
    with open_producer("x", schema_of("f8")) as p, pytest.raises(InvalidArgument, match="an array or a list"):
        p.write_many(values)
