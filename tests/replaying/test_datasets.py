"""Datasets of any origin: variables, coordinates and notes are kept, or an error names what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labhub
from labhub.errors import InvalidArgument
from labhub.hub import Hub
from tests.replaying.conftest import replayed

TIMES = np.array(["2026-01-01", "2026-01-02"], "M8[ns]")


def dataset(**variables: Any) -> xr.Dataset:
    return xr.Dataset(variables, {"time": TIMES})


def test_variables_of_different_dims_are_fields_of_different_shape(hub: Hub) -> None:
    images = np.arange(12).reshape(2, 2, 3)
    found = replayed(hub, dataset(img=(("time", "y", "x"), images), temp=("time", [20.0, 21.0], {"units": "K"})))
    assert found.data["img"].tolist() == images.tolist()
    assert found.data["temp"].tolist() == [20.0, 21.0]
    assert found.schema.units == {"temp": "K"}
    assert found.schema.attrs["img.dims"] == ["y", "x"]


def test_axes_that_all_variables_have_are_those_of_the_slot(hub: Hub) -> None:
    found = replayed(
        hub,
        dataset(a=(("x", "time"), [[1, 2], [3, 4], [5, 6]]), b=(("time", "x", "k"), np.arange(12.0).reshape(2, 3, 2))),
    )
    assert (found.schema.shape, found.schema.dims) == ((3,), ("x",))
    assert found.data["a"].tolist() == [[1, 3, 5], [2, 4, 6]]
    assert found.data["b"].tolist() == np.arange(12.0).reshape(2, 3, 2).tolist()


def test_what_has_no_time_is_a_note(hub: Hub) -> None:
    source = dataset(v=("time", [1.0, 2.0]), gain=((), 2.5, {"units": "V/count"}), table=("x", [1, 2, 3]))
    source = source.assign_coords(x=[10, 20, 30], site="lab").assign_attrs(run=np.int32(3), when=TIMES[0], odd=object())
    source["v"].attrs = {"long_name": "voltage", "valid": np.array([0.0, 5.0])}
    schema = replayed(hub, source).schema
    expected = {"gain": 2.5, "gain.units": "V/count", "table": [1, 2, 3], "x": [10, 20, 30], "site": "lab", "run": 3}
    expected |= {"v.long_name": "voltage", "v.valid": [0.0, 5.0], "variable": "v"}
    assert expected.items() <= schema.attrs.items()
    assert schema.attrs["when"].startswith("2026-01-01")
    assert schema.attrs["replay_notes"] == ["attribute 'odd' is left out: object is no plain value"]


def test_a_large_variable_without_time_is_refused_and_a_large_coordinate_named(hub: Hub) -> None:
    v = {"v": ("time", [1.0, 2.0])}
    with pytest.raises(InvalidArgument, match=r"'mask' has no axis 'time'.*ds.drop_vars\('mask'\)"):
        labhub.replay(dataset(**v, mask=("x", np.zeros(5000))), hub=hub)
    found = replayed(hub, dataset(**v).assign_coords(x=np.arange(5000)))
    assert "coordinate 'x' is left out" in found.schema.attrs["replay_notes"][0]


def test_notes_that_are_too_long_for_the_broker_are_left_out(hub: Hub) -> None:
    source = dataset(v=("time", [1.0, 2.0])).assign_coords(x=np.arange(1000) / 7).assign_attrs(a="a" * 10**5, b="b")
    schema = replayed(hub, source).schema
    assert schema.attrs["b"] == "b"
    assert "note 'a' is left out: it is too long" in schema.attrs["replay_notes"]


def test_a_coordinate_along_time_is_a_field(hub: Hub) -> None:
    found = replayed(hub, dataset(v=("time", [1.0, 2.0])).assign_coords(place=("time", [5, 6]), seq=("time", [7, 8])))
    assert found.data["place"].tolist() == [5, 6]
    assert found.data["seq"].tolist() == [7, 8]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array(["a", "bc"], object), "U2"),
        (np.array(["a", "bc"]), "U2"),
        (np.array([b"a", b"bc"]), "S2"),
        (np.array([1, 2], object), "i8"),
        (np.array([1, None], object), "f8"),
        (np.array([True, False]), "?"),
        (np.array([1 + 1j, 2]), "c16"),
        (np.array([1, 2], ">u2"), ">u2"),
        (np.array(["2500-01-01", "NaT"], "M8[s]"), "M8[s]"),
        (np.array([1, 2], "m8[ms]"), "m8[ms]"),
        (pd.array([1, 2], "Int64"), "i8"),
        (pd.Categorical(["a", "b"]), "U1"),
    ],
)
def test_values_of_any_type(hub: Hub, values: Any, dtype: str) -> None:
    source = xr.Dataset({"v": ("time", values), "w": ("time", [1.0, 2.0])}, {"time": TIMES})
    found = replayed(hub, source)
    assert found.data["v"].dtype == np.dtype(dtype)
    expected = np.array([np.nan if v is None else v for v in np.asarray(values)], dtype)
    assert np.array_equal(found.data["v"], expected, equal_nan=expected.dtype.kind in "fM")


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy has no StringDType")
def test_strings_of_variable_length_with_axes(hub: Hub) -> None:
    words = np.array([["a", "bc"], ["", "def"]], np.dtypes.StringDType())
    found = replayed(hub, dataset(v=(("time", "k"), words), w=("time", [1, 2])))
    assert found.data["v"].tolist() == [["a", "bc"], ["", "def"]]


def test_what_dask_computes_is_computed_block_by_block(hub: Hub) -> None:
    pytest.importorskip("dask.array")
    source = xr.Dataset({"v": (("time", "x"), np.arange(20.0).reshape(10, 2))}, {"time": np.arange(10.0)[::-1] + 1})
    found = replayed(hub, source.chunk(time=3))
    assert found.data.tolist() == np.arange(20.0).reshape(10, 2)[::-1].tolist()


def test_an_array_is_a_dataset_of_one_variable(hub: Hub) -> None:
    array = xr.DataArray([1.0, 2.0], {"time": TIMES}, ("time",), name="p", attrs={"units": "bar"})
    found = replayed(hub, array)
    assert found.data.tolist() == [1.0, 2.0]
    assert found.schema.units == {"value": "bar"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (xr.Dataset({"v": ("t", [1.0])}), "needs the coordinate 'time'"),
        (xr.Dataset({"v": ("time", [1.0])}), "needs the coordinate 'time'"),
        (xr.Dataset({"v": 1.0}, {"time": TIMES[0]}), "needs the coordinate 'time'"),
        (xr.Dataset({"v": ("x", [1.0])}, {"time": TIMES}), "no variable along 'time'"),
        (xr.Dataset({"v": ("time", [])}, {"time": TIMES[:0]}), "no rows"),
        (xr.Dataset({"v": (("time", "x"), np.zeros((2, 0)))}, {"time": TIMES}), "length of at least 1"),
        (dataset(v=("time", np.array([2**64, 1], object))), "element 0 along 'time', column 'v': .* 64 bits"),
        (dataset(v=("time", np.array([{}, {}], object))), "'v' is left out: it holds dict"),
    ],
)
def test_a_dataset_that_cannot_be_replayed(hub: Hub, source: xr.Dataset, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        labhub.replay(source, hub=hub)
    assert hub.channels() == []
