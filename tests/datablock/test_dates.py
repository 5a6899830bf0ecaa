"""Dates and durations of every unit on their way out of a batch: the value, or an error that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labhub.datablock import dates
from labhub.datablock.gaps import GapFiller
from labhub.errors import InvalidArgument
from labhub.schema import Schema
from tests.datablock.batches import batch_of, same

YEARS_400 = 400 * 365 * 86_400
VALUES: dict[str, list[Any]] = {
    "M8[us]": ["9999-12-31T00:00:00.000001", "NaT", "0001-01-01"],
    "M8[ms]": ["9999-12-31T00:00:00.001", "1969-12-31T23:59:59.999"],
    "M8[s]": ["3000-01-01", "NaT"],
    "M8[m]": ["2500-01-01T00:01"],
    "M8[h]": ["2500-01-01T01"],
    "M8[D]": ["2500-01-01", "NaT", "-4000-01-01"],
    "M8[W]": ["2026-11-26"],
    "M8[M]": ["2026-11", "NaT"],
    "M8[Y]": ["9999"],
    "M8[ns]": ["2262-04-11T23:47:16.854775807", "1677-09-21T00:12:43.145224193"],
    "M8[ps]": ["1970-01-01T00:00:00.000000001500", "NaT"],
    "M8[10ms]": ["2026-11-25T12:00:00.01", "NaT"],
    "M8[7D]": ["2026-11-26"],
    ">M8[us]": ["9999-12-31T00:00:00.000001", "NaT"],
    "m8[s]": [YEARS_400, -YEARS_400, "NaT"],
    "m8[us]": [2**62 + 1, 2**53 + 1],
    "m8[ns]": [2**63 - 1, -(2**63) + 1, "NaT"],
    "m8[ps]": [1500, 2**53 + 1],
    "m8[as]": [1],
    "m8[D]": [400 * 366],
    "m8[W]": [5],
    "m8[M]": [5, "NaT"],
    "m8[Y]": [5],
    "m8[25s]": [3],
    ">m8[ms]": [1500],
    "M8": ["NaT"],
    "m8": [5],
}


def values_of(dtype: str) -> np.ndarray[Any, Any]:
    return np.array([np.array(v, np.dtype(dtype).newbyteorder("=")) for v in VALUES[dtype]]).astype(dtype)


@pytest.mark.parametrize("dtype", VALUES)
def test_a_dataset_has_the_value(dtype: str) -> None:
    values = values_of(dtype)
    found = batch_of(Schema(np.dtype(dtype)), values).to_xarray()["value"]
    assert found.attrs.get("labhub_dtype", dates.name_of(values.dtype)) == dates.name_of(values.dtype)
    assert (found.dtype == np.int64) == ("labhub_dtype" in found.attrs)
    assert same(found.values.astype(values.dtype), values)
    if found.dtype != np.int64:
        assert same(found.values, values)  # also as NumPy compares them


@pytest.mark.parametrize("dtype", VALUES)
def test_an_arrow_table_has_the_value(dtype: str) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'labhub[arrow]'")
    values = values_of(dtype)
    table = batch_of(Schema(np.dtype(dtype)), values).to_arrow()
    found = table["value"].to_numpy()
    assert same(found.astype(values.dtype), values)
    assert (b"labhub_dtype" in table.schema.field("value").metadata) == (found.dtype == np.int64)


@pytest.mark.parametrize("number", [2**62, -(2**62), 2**63 - 1])
@pytest.mark.parametrize("dtype", ["M8[D]", "M8[h]", "M8[Y]", "m8[D]", "m8[W]", "M8[10ms]"])
def test_what_no_other_unit_can_hold_is_an_error_that_names_the_field(dtype: str, number: int) -> None:
    batch = batch_of(
        Schema(np.dtype([("when", dtype)])), np.array([(number,)], [("when", "i8")]).view([("when", dtype)])
    )
    for convert in batch.to_xarray, batch.to_arrow, batch.to_pandas:
        with pytest.raises(InvalidArgument, match="the field 'when'"):
            convert()


def test_gaps_keep_dates_and_large_numbers() -> None:
    schema = Schema(np.dtype([("when", "M8[us]"), ("fine", "M8[ps]"), ("n", "u8")]))
    data = np.zeros(4, schema.dtype)
    data["when"], data["fine"], data["n"] = np.datetime64("9999-12-31"), np.datetime64(2**62 + 1, "ps"), 2**60
    batch = batch_of(schema, data)
    first, second = batch.split(2)
    second.headers["seq"] += 3
    filler = GapFiller()
    filler.fill(first)
    found = filler.fill(second)
    assert same(found["when"].values, np.array(["NaT"] * 3 + ["9999-12-31"] * 2, "M8[us]"))
    assert found["fine"].values.tolist() == [dates.NAT] * 3 + [2**62 + 1] * 2
    assert found["n"].values[3:].tolist() == [2**60] * 2
    assert found.time.encoding["units"] == "nanoseconds since 1970-01-01"
    assert found["when"].encoding["units"] == "microseconds since 1970-01-01"
    batch.data["n"][3] += 1
    with pytest.raises(InvalidArgument, match=r"no float is 1152921504606846977, of the field 'n'"):
        filler.fill(second)
