"""Names, units, dates and attributes in a store: xarray shows the values, and a replay gives the same bytes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import labhub
from labhub.datablock import dates
from labhub.datablock.batch import Batch
from labhub.datablock.table import layout_of
from labhub.errors import InvalidArgument, NotARecording
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.layout import check_storable, rows_of
from labhub.recording.reading import stored_channels
from labhub.schema import Schema, leaves
from tests.datablock.batches import batch_of, same
from tests.datablock.test_arrow import VALUES
from tests.datablock.test_dates import VALUES as TIMES
from tests.datablock.test_dates import values_of as times_of
from tests.datablock.test_table import ATTRIBUTES, HARD, values_of
from tests.upgrade.stores import before_tables as make


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


def as_given(schema: Schema) -> dict[str, Any]:
    """Return a schema as arguments of `Hub.producer`."""
    return {name: getattr(schema, name) for name in ("dtype", "shape", "dims", "units", "sample_rate", "attrs")}


def recorded(hub: Hub, store: Path, schema: Schema, data: np.ndarray[Any, Any]) -> Batch:
    """Record slots of the channel ``x`` and return them as they are live."""
    with hub.producer("x", capacity=64, **as_given(schema)) as p:
        with hub.record("x", store=store):
            p.write_many(data)
        return hub.consumer("x", start="oldest").snapshot(last=len(data))


def opened(store: Path, channel: str = "x") -> xr.Dataset:
    """Open a channel as anybody would, with nothing to be warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for of_older_xarray in "Failed to open Zarr store with consolidated", "In a future version":
            warnings.filterwarnings("ignore", f"{of_older_xarray}.*")
        return xr.open_zarr(store, group=channel, chunks=None).load()


def replayed(hub: Hub, store: Path, n: int) -> Batch:
    """Replay the channel ``x`` under another name, and read it."""
    with labhub.replay(store, hub=hub, speed=None, prefix="replay.") as replay:
        with hub.consumer("replay.x", mode="lossless", start="oldest") as consumer:
            batch = next(consumer.batches(min_slots=n, timeout=10))
        assert replay.wait(timeout=10)
    return batch


@pytest.mark.parametrize("schema", HARD.values(), ids=HARD)
def test_every_field_has_an_array_whatever_it_is_called(hub: Hub, store: Path, schema: Schema) -> None:
    live = recorded(hub, store, schema, batch_of(schema).data)
    found = opened(store)
    ds = live.to_xarray()
    for column, values in zip(layout_of(schema).columns, values_of(schema, live.data), strict=True):
        assert column.name in found.data_vars
        assert found[column.name].dims[: 1 + len(column.dims)] == ("time", *column.dims)
        if column.leaf.dtype.kind not in "SV":  # these have an axis of bytes
            assert found[column.name].dims == ds[column.name].dims
            assert same(found[column.name].values.reshape(values.shape), values)
    assert (found.seq.values == ds.seq.values).all()
    assert verify(store).complete
    after = replayed(hub, store, len(live))
    assert after.data.tobytes() == live.data.tobytes()
    assert layout_of(after.schema).columns == layout_of(schema).columns


UNITS = [
    *("counts since reset", "seconds since trigger", "m since 2020-01-01", "days since 2020-01-01", "Since start"),
    *("seconds", "milliseconds", "microseconds", "nanoseconds", "days", "hours", "minutes"),
    *("s", "ms", "us", "m", "mbar", "µm", "%", "timedelta64[ns]", "nanoseconds since 1970-01-01"),
]


@pytest.mark.parametrize("dtype", ["f8", "i8", "u2"])
def test_the_users_unit_changes_no_value_and_reaches_the_reader(hub: Hub, store: Path, dtype: str) -> None:
    schema = Schema(
        np.dtype([(f"v{k}", dtype) for k in range(len(UNITS))]), units={f"v{k}": u for k, u in enumerate(UNITS)}
    )
    live = recorded(hub, store, schema, np.ones(3, schema.dtype))
    found = opened(store)
    for k, unit in enumerate(UNITS):
        variable = found[f"v{k}"]
        assert variable.dtype == dtype
        assert (variable.values == 1).all()
        assert variable.attrs.get("labhub_units", variable.attrs.get("units")) == unit
        assert live.to_xarray()[f"v{k}"].attrs["units"] == unit
    assert "units" not in found["v0"].attrs
    assert found["v5"].attrs["units"] == "s"
    (channel,) = stored_channels(store)
    assert channel.schema == schema


def test_attributes_of_the_user_replace_none_of_the_recording(hub: Hub, store: Path) -> None:
    schema = Schema(np.dtype("f8"), attrs=ATTRIBUTES)
    live = recorded(hub, store, schema, np.arange(3.0))
    found = opened(store)
    assert list(found.data_vars) == ["value"]
    assert found.attrs["channel"] == "x"
    assert found.attrs["lossless"] == 1
    assert found.attrs["Conventions"].startswith("CF-")
    assert found.attrs["clock_epochs"] == [1]
    assert Schema.from_json(found.attrs["labhub_schema"]).attrs == ATTRIBUTES
    shown = live.to_xarray().attrs
    assert {key: found.attrs[key] for key in shown} == shown
    assert verify(store).complete
    assert replayed(hub, store, 3).schema.attrs.items() >= ATTRIBUTES.items()


@pytest.mark.parametrize("dtype", [dtype for dtype in TIMES if dtype not in ("M8", "m8")])
def test_a_date_or_duration_is_stored_as_it_is(hub: Hub, store: Path, dtype: str) -> None:
    values = times_of(dtype)
    schema = Schema(np.dtype(dtype), units={"value": "UTC"})
    live = recorded(hub, store, schema, values)
    found = opened(store)["value"]
    if found.dtype == np.int64:
        assert found.attrs["labhub_dtype"] == dates.name_of(values.dtype)
        assert same(found.values.view(values.dtype.newbyteorder("=")), values)
    else:
        assert same(found.values.astype(values.dtype), values)
    assert found.attrs["labhub_units"] == "UTC"
    after = replayed(hub, store, len(values))
    assert after.data.tobytes() == live.data.tobytes()
    assert verify(store).complete


@pytest.mark.parametrize(
    ("dtype", "near", "far"),
    [
        ("M8[us]", ["2255-06-05T23:47:34.740993", "1678-01-01"], "9999-12-31"),
        ("M8[D]", ["2026-11-25", "NaT"], "2500-01-01"),
        ("m8[s]", [9_223_372_036, -9_223_372_036], 400 * 366 * 86_400),
        ("m8[D]", [3, "NaT"], 400 * 366),
    ],
)
def test_dates_are_dates_until_one_comes_that_xarray_cannot_read(
    hub: Hub, store: Path, dtype: str, near: list[Any], far: Any, wait_until: Any
) -> None:
    close = np.array([np.array(v, dtype) for v in near])
    with hub.producer("x", dtype=dtype) as p, hub.record("x", store=store) as rec:
        p.write_many(close)
        wait_until(lambda: rec.status.stored == len(close))
        found = opened(store)["value"]
        assert same(found.values.astype(dtype), close)
        assert found.dtype != np.int64
        p.write(np.array(far, dtype))
        wait_until(lambda: rec.status.stored == len(close) + 1)
        p.write_many(close)
    found = opened(store)["value"]
    assert found.attrs["labhub_dtype"] == dates.name_of(np.dtype(dtype))
    assert same(found.values.view(dtype), np.concatenate([close, [np.array(far, dtype)], close]))
    assert verify(store).complete


@pytest.mark.parametrize("shape", [(), (2,)])
@pytest.mark.parametrize("dtype", [*VALUES, "c8", ">c16"])
def test_every_dtype_comes_back(hub: Hub, store: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.resize(np.array(VALUES.get(dtype, [1 + 2j, np.nan]), dtype), (3, *shape))
    live = recorded(hub, store, Schema(np.dtype(dtype), shape), values)
    found = opened(store)["value"]
    if values.dtype.kind in "SV":
        assert found.values.tobytes() == values.tobytes()
    else:
        assert same(found.values.astype(values.dtype), values)
    assert replayed(hub, store, 3).data.tobytes() == live.data.tobytes()


@pytest.mark.parametrize(
    ("channel", "schema", "words"),
    [
        ("x", Schema(np.dtype([("a", "f8"), ("p", [("q", "g")])])), "the field 'p.q' of 'x' is .*float64"),
        ("x", Schema(np.dtype("G"), (3,)), "Zarr has no type"),
        ("x", Schema(np.dtype("m8")), "without a unit; give it one, such as 'm8"),
        ("x", Schema(np.dtype([("t", "M8", 2)])), "the field 't' of 'x'"),
        ("x", Schema(np.dtype([("a", "S0"), ("b", "i1")])), "the field 'a' of 'x' .* has no bytes"),
        ("x", Schema(np.dtype([("n" * 300, "f8")])), "its name has 300 bytes"),
        ("x", Schema(np.dtype([("µ" * 128, "f8")])), "its name has 256 bytes"),
        ("x", Schema(np.dtype([("a" * 100, [("b" * 100, [("c" * 100, "f8")])])])), "302 bytes"),
        ("zarr.json", Schema(np.dtype("f8")), "another name"),
        ("manifest.jsonl", Schema(np.dtype("f8")), "another name"),
        ("b3sums.txt", Schema(np.dtype("f8")), "another name"),
        ("x", Schema(np.dtype("f8"), (1 << 30,)), "divide it"),
        ("a/b", Schema(np.dtype("f8")), "cannot name a channel"),
        (".", Schema(np.dtype("f8")), "cannot name a channel"),
        ("", Schema(np.dtype("f8")), "cannot name a channel"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_what_to_do(channel: str, schema: Schema, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_storable(channel, schema)


@pytest.mark.parametrize("schema", HARD.values(), ids=HARD)
def test_what_can_be_stored_is_let_through(schema: Schema) -> None:
    check_storable("a.b-c_D9", schema)
    check_storable("zarr.jsonl", schema)


def test_the_longest_name_is_stored(hub: Hub, store: Path) -> None:
    schema = Schema(np.dtype([("n" * 255, "f8"), ("µ" * 127, "S2")]))
    check_storable("x" * 128, schema)
    live = recorded(hub, store, schema, batch_of(schema).data)
    assert opened(store).sizes["time"] == 3
    assert replayed(hub, store, 3).data.tobytes() == live.data.tobytes()


def test_text_that_utf8_cannot_hold_is_an_error_that_names_the_field() -> None:
    batch = batch_of(Schema(np.dtype([("name", "U2")])), [("\udcff",)])
    with pytest.raises(InvalidArgument, match="the field 'name' holds text"):
        list(rows_of(batch))


def test_a_name_that_utf8_cannot_hold_makes_no_schema() -> None:
    with pytest.raises(InvalidArgument, match="UTF-8"):
        Schema(np.dtype([("\udcff", "f8")]))


def test_a_store_of_a_later_version_is_refused(hub: Hub, store: Path) -> None:
    recorded(hub, store, Schema(np.dtype("f8")), np.zeros(1))
    root = store / "zarr.json"
    root.write_text(root.read_text().replace('"version":2', '"version":3'))
    with pytest.raises(NotARecording, match="version 3, this labhub reads versions up to 2; update labhub"):
        stored_channels(store)


def test_a_store_of_an_earlier_version_is_read(hub: Hub, tmp_path: Path) -> None:
    shutil.unpack_archive(Path(make.__file__).with_name("before_tables.zip"), tmp_path)
    store = tmp_path / make.STORE.name
    proof = verify(store)
    assert proof
    assert proof.complete
    assert opened(store, "log")["seq_"].values.tolist() == [10, 11, 12]
    for channel in stored_channels(store, proof.public_key):
        schema = make.SCHEMAS[channel.name]
        expected = make.slots(channel.name)
        assert channel.schema == schema
        (data, _, nbytes), *rest = channel.read()
        assert not rest
        assert (nbytes == schema.slot_nbytes).all()
        assert [leaf.path for leaf in leaves(data.dtype)] == [leaf.path for leaf in leaves(expected.dtype)]
        for one, other in zip(values_of(schema, data), values_of(schema, expected), strict=True):
            assert same(one, other)
    with labhub.replay(store, hub=hub, speed=None, key=proof.public_key) as replay:
        batches = {
            name: next(hub.consumer(name, mode="lossless", start="oldest").batches(min_slots=3, timeout=10))
            for name in make.SCHEMAS
        }
        assert replay.wait(timeout=10)
    assert same(batches["adc"].data, make.slots("adc"))
    assert same(batches["log"].data["when"], make.slots("log")["when"])
