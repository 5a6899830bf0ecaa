"""A batch as named columns: names that collide, units, and attributes, in xarray, Arrow and pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from labhub.datablock.table import OWN, layout_of
from labhub.errors import InvalidArgument
from labhub.schema import Schema, leaves
from tests.datablock.batches import batch_of, same

POINT = [("x", "f4"), ("y", "f4")]
HARD: dict[str, Schema] = {
    "an axis of one field is called as another": Schema(np.dtype([("pos", "f8", 3), ("pos_0", "f8")])),
    "the other way round": Schema(np.dtype([("pos_0", "f8"), ("pos", "f8", 3)])),
    "nested and dotted": Schema(np.dtype([("p", POINT), ("p.x", "f8"), ("p.x_", "f8")])),
    "an axis of the slot is called as one of a field": Schema(np.dtype([("x", "f8", 3)]), (2,), ("x_0",)),
    "own names": Schema(np.dtype([(name, "f8") for name in (*OWN, "channel", "slot", "gap", "lead")])),
    "names like own ones": Schema(np.dtype([("gap_mm", "f8"), ("slot_temp", "f8"), ("gap_seq_", "f8")])),
    "own names in blocks": Schema(np.dtype([("time", "i2"), ("slot_seq", "i2")]), (4,), ("time",), {}, 100),
    "dims are called as fields": Schema(np.dtype([("a", "f8"), ("b", "f8")]), (2, 3), ("a", "b")),
    "own dims": Schema(np.dtype([("v", "f8")]), (2, 3, 4, 2, 2), ("seq", "nbytes", "epoch", "slot", "gap")),
    "default dims": Schema(np.dtype([("dim_0", "f8"), ("dim_1", "f8")]), (2, 2)),
    "no names of Zarr": Schema(np.dtype([(n, "f4") for n in ("a/b", "a\\b", "a_b", "zarr.json", "__x", ".", "..")])),
    "case": Schema(np.dtype([("V", "f4"), ("v", "f4")])),
    "empty": Schema(np.dtype({"names": ["", "field_", " "], "formats": ["f4", "f4", "f4"]})),
    "records in an array": Schema(np.dtype([("a", [("x", "f4", 2), ("y", "i2")], 3), ("a.x", "f4")]), (2,)),
    "bytes beside bytes": Schema(np.dtype([("tag", "S4"), ("tag_byte", "S4"), ("raw", "V3")])),
    "in every language": Schema(np.dtype([("温度", "f4"), ("T °C", "f4"), ("v (m/s)", "f4"), ("a\nb", "f4")])),
    "deep": Schema(np.dtype([("a", [("b", [("c", "f4")])]), ("a.b", [("c", "f4")]), ("a.b.c", "f4")])),
}


def values_of(schema: Schema, data: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return each plain field of slots, found by its path."""
    found = []
    for leaf in leaves(schema.dtype):
        part = data
        for name in leaf.path:
            part = part[name]
        found.append(part)
    return found


@pytest.mark.parametrize("schema", HARD.values(), ids=HARD)
def test_no_field_is_left_out_whatever_it_is_called(schema: Schema) -> None:
    batch = batch_of(schema)
    layout = layout_of(schema)
    names = [column.name for column in layout.columns]
    ds = batch.to_xarray()
    assert list(ds.data_vars) == names
    assert not set(names) & {*ds.dims, *OWN}
    assert len({*names, *ds.dims, "seq"}) == len(names) + len(ds.dims) + 1
    for name, values in zip(names, values_of(schema, batch.data), strict=True):
        assert same(ds[name].values.reshape(values.shape), values)
    table = batch.to_arrow()
    assert table.column_names == ["time", "seq", *names]
    for column in layout.columns:
        assert table.schema.field(column.name).metadata[b"labhub_field"] == column.field.encode()
    assert set(batch.to_pandas().columns) == {*names, "seq"}
    again = layout_of(Schema.from_json(schema.to_json()))
    assert again.columns == layout.columns


def test_a_field_keeps_its_name_where_it_can() -> None:
    names = {what: [c.name for c in layout_of(schema).columns] for what, schema in HARD.items()}
    assert names["an axis of one field is called as another"] == ["pos", "pos_0"]
    assert names["nested and dotted"] == ["p.x__", "p.y", "p.x", "p.x_"]
    assert names["case"] == ["V", "v"]
    assert names["no names of Zarr"] == ["a_b_", "a_b__", "a_b", "field_zarr.json", "field___x", "field_.", "field_.."]
    assert names["own names in blocks"] == ["time_", "slot_seq_"]
    assert [c.dims for c in layout_of(HARD["an axis of one field is called as another"]).columns] == [("pos_0_",), ()]
    assert [c.dims for c in layout_of(HARD["an axis of the slot is called as one of a field"]).columns] == [
        ("x_0", "x_0_")
    ]


def test_every_field_has_its_unit() -> None:
    dtype = np.dtype([("a.b", "f8"), ("p", [("x", "f4"), ("q", [("y", "f4"), ("z", "f4")])])])
    schema = Schema(dtype, units={"a.b": "bar", "p": "mm", "p.q": "m", "p.q.z": "km"})
    assert Schema.from_json(schema.to_json()) == schema
    ds = batch_of(schema).to_xarray()
    assert {name: v.attrs["units"] for name, v in ds.data_vars.items()} == {
        "a.b": "bar",
        "p.x": "mm",
        "p.q.y": "m",
        "p.q.z": "km",
    }
    table = batch_of(schema).to_arrow()
    assert [table.schema.field(n).metadata[b"units"] for n in table.column_names[2:]] == [b"bar", b"mm", b"m", b"km"]


def test_the_unit_of_a_dotted_field_is_not_that_of_a_nested_one() -> None:
    schema = Schema(np.dtype([("p", [("x", "f4")]), ("p.x", "f4")]), units={"p": "mm", "p.x": "V"})
    assert [c.unit for c in layout_of(schema).columns] == ["mm", "V"]
    with pytest.raises(InvalidArgument, match=r"units name the field 'p\.z'"):
        Schema(schema.dtype, units={"p.z": "mm"})


ATTRIBUTES = {
    "coordinates": "value",
    "channel": "A",
    "channel_": "B",
    "labhub_schema": "mine",
    "Conventions": "my own",
    "lossless": "yes",
    "lost": 3,
    "clock_offset_ns": "none",
    "recording_error": "no",
    "_FillValue": 0,
    "scale_factor": 2.0,
    "grid_mapping": "value",
    "bounds": "value",
    "ancillary_variables": "value",
}


def test_attributes_of_the_user_stay_beside_those_that_have_a_meaning() -> None:
    attrs = batch_of(Schema(np.dtype("f8"), attrs=ATTRIBUTES)).to_xarray().attrs
    assert attrs["channel"] == "x"
    assert attrs["channel__"] == "A"
    assert attrs["channel_"] == "B"
    assert attrs["coordinates_"] == "value"
    assert attrs["grid_mapping"] == "value"
    assert sorted(map(str, attrs.values())) == sorted(map(str, ["x", *ATTRIBUTES.values()]))


@pytest.mark.parametrize("unit", ["counts since reset", "days since 2020-01-01", "seconds", "ms"])
def test_a_live_dataset_has_the_unit_in_the_users_words(unit: str) -> None:
    assert batch_of(Schema(np.dtype("f8"), units={"value": unit})).to_xarray()["value"].attrs == {"units": unit}


def test_a_user_who_appends_pieces_to_a_store_gets_their_times(tmp_path: Any) -> None:
    dtype = np.dtype([("v", "f8"), ("when", "M8[ns]"), ("took", "m8[ns]"), ("day", "M8[D]"), ("us", "m8[us]")])
    whole, half = batch_of(Schema(dtype)), batch_of(Schema(dtype))
    for batch, step, at in (whole, 1_000_000_000, 0), (half, 500_000_000, 10):
        ns = (at * 1_000_000_000 + np.arange(3) * step).astype("i8")
        batch.headers["timestamp_ns"] = 1_764_500_000_000_000_000 + ns
        batch.data["when"] = batch.time
        batch.data["took"] = ns.view("m8[ns]")
        batch.data["us"] = batch.data["took"]
        batch.data["day"] = np.datetime64("2026-11-25")
    whole.to_xarray().to_zarr(tmp_path / "own.zarr", consolidated=False)
    half.to_xarray().to_zarr(tmp_path / "own.zarr", append_dim="time", consolidated=False)
    found = xr.open_zarr(tmp_path / "own.zarr", consolidated=False, chunks=None, decode_timedelta=True).load()
    assert same(found.time.values, np.concatenate([whole.time, half.time]))
    for name in "when", "took", "day", "us":
        assert same(found[name].values, np.concatenate([whole.data[name], half.data[name]])), name


@pytest.mark.parametrize(
    "op", [lambda ds: ds, lambda ds: ds.isel(time=slice(1, None)), lambda ds: xr.concat([ds], "time")]
)
def test_times_are_saved_as_nanoseconds(op: Any) -> None:
    schema = Schema(np.dtype("f4"), (4,), ("time",), sample_rate=10)
    encoding = op(batch_of(schema).to_xarray()).time.encoding
    assert encoding["units"] == "nanoseconds since 1970-01-01"
    assert encoding["dtype"] == "int64"


@pytest.mark.filterwarnings("ignore:.*Zarr.*")
@pytest.mark.parametrize("schema", HARD.values(), ids=HARD)
def test_a_user_can_save_what_a_batch_gives_and_read_it(schema: Schema, tmp_path: Any) -> None:
    ds = batch_of(schema).to_xarray().assign_attrs(layout_of(Schema(np.dtype("f8"), attrs=ATTRIBUTES)).attrs)
    ds.to_zarr(tmp_path / "own.zarr", consolidated=False)
    found = xr.open_zarr(tmp_path / "own.zarr", consolidated=False, chunks=None).load()
    assert list(found.data_vars) == list(ds.data_vars) or set(found.data_vars) == set(ds.data_vars)
    for name in ds.variables:
        assert same(found[name].values, ds[name].values)
    assert found.attrs == ds.attrs


def test_pandas_can_work_with_numbers_of_another_byte_order() -> None:
    schema = Schema(np.dtype([("a", ">f8"), ("b", ">i2"), ("c", ">U2"), ("d", "S2")]))
    frame = batch_of(schema, [(2.0, 1, "µ", b"x"), (1.0, 2, "a", b"y")]).to_pandas()
    assert frame.sort_values("a").b.tolist() == [2, 1]
    assert frame.groupby("b").a.sum().tolist() == [2.0, 1.0]
    assert frame.c.tolist() == ["µ", "a"]
