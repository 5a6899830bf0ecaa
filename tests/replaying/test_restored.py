"""What labhub itself has turned into tables and datasets becomes the channel again: schema, slots and times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr

import labhub
from labhub.datablock.batch import Batch
from labhub.errors import InvalidArgument
from labhub.hub import Hub
from tests.replaying.conftest import replayed

NESTED = [("p", "f8"), ("inner", [("x", "i2", (2,)), ("tag", "S4")]), ("name", "U3"), ("raw", "V3"), ("on", "?")]
RATE = {"sample_rate": 1e4}
CHANNELS: list[tuple[dict[str, Any], Callable[[int], Any]]] = [
    ({"dtype": "f8", "units": "bar", "attrs": {"run": 7}}, lambda k: k / 2),
    ({"dtype": NESTED, "units": {"p": "bar"}}, lambda k: (k, ([k, -k], b"ab"), f"n{k}", b"a\0b", k % 2 == 0)),
    ({"dtype": "u2", "shape": (4, 3), "dims": ("y", "x")}, lambda k: np.full((4, 3), k)),
    ({"dtype": [("a", "f4", (2, 2)), ("b", ">i4")], "shape": (3,)}, lambda k: [(np.full((2, 2), k), -k)] * 3),
    ({"dtype": [("when", "M8[us]"), ("took", "m8[ms]")]}, lambda k: (np.datetime64(k, "us"), np.timedelta64(k, "ms"))),
    ({"dtype": [("time", "f8"), ("seq", "i4")]}, lambda k: (k, -k)),
    ({"dtype": "f8", "shape": (5,), "dims": ("time",), **RATE}, lambda k: np.arange(5) + k),
    ({"dtype": "i2", "shape": (5, 3), "dims": ("time", "lead"), **RATE}, lambda k: np.full((5, 3), k)),
    ({"dtype": "i2", "shape": (3, 5), "dims": ("lead", "time"), **RATE}, lambda k: np.arange(15).reshape(3, 5) + k),
    ({"dtype": [("a", "f4"), ("b", "i4", 2)], "shape": 5, "dims": "time", **RATE}, lambda k: [(k, (k, -k))] * 5),
]


def some(hub: Hub, options: dict[str, Any], slot: Callable[[int], Any], n: int = 4) -> Batch:
    """Return the slots of a channel that was written and has ended."""
    with hub.producer("x", **options) as p, hub.consumer("x", start="oldest") as c:
        for k in range(n):
            with p.slot() as s:
                s.array[...] = np.array(slot(k), p.schema.dtype)
                s.timestamp_ns = 10**18 + k * 10**9
        return c.snapshot(last=n)


def check_same(after: Batch, before: Batch) -> None:
    assert after.schema.layout_hash == before.schema.layout_hash
    for name in ("units", "dims", "sample_rate"):
        assert getattr(after.schema, name) == getattr(before.schema, name)
    assert before.schema.attrs.items() <= after.schema.attrs.items()
    assert after.timestamp_ns.tolist() == before.timestamp_ns.tolist()
    assert after.nbytes.tolist() == before.nbytes.tolist()
    assert after.data.tobytes() == before.data.tobytes()


@pytest.mark.parametrize(("options", "slot"), CHANNELS)
def test_a_table_of_arrow_is_the_channel_again(hub: Hub, tmp_path: Path, options: dict, slot: Callable) -> None:
    before = some(hub, options, slot)
    table = before.to_arrow()
    pq.write_table(table, tmp_path / "x.parquet")
    for source in (table, tmp_path / "x.parquet"):
        check_same(replayed(hub, source), before)


def test_a_table_of_arrow_keeps_the_name_of_its_channel(hub: Hub) -> None:
    with labhub.replay(some(hub, {"dtype": "f8"}, float).to_arrow(), hub=hub) as replay:
        assert replay.channels == ("x",)
        assert replay.notes == {}


def test_a_block_that_was_cut_short_is_short_again(hub: Hub) -> None:
    with hub.producer("x", dtype="i2", shape=(10, 2), dims=("time", "lead"), sample_rate=1e4) as p:
        with hub.consumer("x", start="oldest") as c:
            with p.slot() as s:
                s.array[...] = 1
                s.nbytes = 3 * 2 * 2
            p.write(np.full((10, 2), 2))
            before = c.snapshot(last=2)
    found = replayed(hub, before.to_arrow())
    check_same(found, before)
    assert found.nbytes.tolist() == [12, 40]


def test_samples_that_are_part_of_a_block_keep_their_times(hub: Hub) -> None:
    before = some(hub, {"dtype": "f8", "shape": (5,), "dims": ("time",), **RATE}, lambda k: np.arange(5) + 10 * k)
    found = replayed(hub, before.to_arrow().slice(3, 10))
    assert found.nbytes.tolist() == [16, 40, 24]
    assert found.to_xarray()["time"].values.tolist() == before.to_xarray()["time"].values[3:13].tolist()
    assert found.to_xarray()["value"].values.tolist() == before.to_xarray()["value"].values[3:13].tolist()


def test_a_table_that_was_worked_on_gives_a_field_for_each_column(hub: Hub) -> None:
    before = some(hub, {"dtype": [("a", "f8"), ("b", "i4", 2)]}, lambda k: (k, (k, -k)))
    table = before.to_arrow()
    for source in (
        table.select(["time", "b"]),
        table.append_column("c", pa.array([1, 2, 3, 4])),
        table.set_column(2, "a", pa.array(["p", "q", "r", "s"])),
    ):
        found = replayed(hub, source)
        assert found.data["b"].tolist() == before.data["b"].tolist()
        assert set(found.schema.fields) == set(source.column_names) - {"time", "seq"}
        assert "no longer that of its channel" in found.schema.attrs["replay_notes"][0]


@pytest.mark.parametrize(("options", "slot"), CHANNELS)
def test_a_group_of_a_recording_is_the_channel_again(hub: Hub, tmp_path: Path, options: dict, slot: Callable) -> None:
    with hub.producer("x", **options) as p, hub.consumer("x", start="oldest") as c:
        with hub.record("x", store=tmp_path / "run.zarr"):
            for k in range(4):
                p.write(np.array(slot(k), p.schema.dtype) if p.schema.shape else slot(k))
        before = c.snapshot(last=4)
    group = xr.open_zarr(tmp_path / "run.zarr", group="x")
    check_same(replayed(hub, group), before)
    check_same(replayed(hub, group.load()), before)


def test_part_of_a_group_is_part_of_the_channel(hub: Hub, tmp_path: Path) -> None:
    with hub.producer("x", dtype="f8", units="bar") as p, hub.record("x", store=tmp_path / "run.zarr"):
        p.write_many(np.arange(10.0))
    group = xr.open_zarr(tmp_path / "run.zarr", group="x")
    found = replayed(hub, group.isel(time=slice(3, 6)))
    assert found.data.tolist() == [3.0, 4.0, 5.0]
    assert found.schema.units == {"value": "bar"}
    changed = group.assign(value=(group["value"] * 2).assign_attrs(units="psi"))
    assert replayed(hub, changed).schema.units == {"value": "psi"}
    more = replayed(hub, group.assign(twice=group["value"] * 2))
    assert more.data["twice"].tolist() == [2.0 * k for k in range(10)]
    assert set(more.schema.fields) == {"value", "twice"}


@pytest.mark.parametrize(("options", "slot"), CHANNELS)
def test_a_live_dataset_replays_with_its_values_and_times(hub: Hub, options: dict, slot: Callable) -> None:
    before = some(hub, options, slot).to_xarray()
    found = replayed(hub, before)
    assert found.channel == "x"
    after = found.to_xarray()
    assert after["time"].values.tolist() == before["time"].values.tolist()
    for name, variable in before.data_vars.items():
        shown = str(name) if str(name) in after else f"{name}_"
        assert after[shown].values.tolist() == variable.values.tolist(), name
        assert after[shown].attrs.get("units") == variable.attrs.get("units")


@pytest.mark.parametrize(("options", "slot"), [CHANNELS[k] for k in (0, 2, 5, 6, 7)])
def test_a_live_frame_replays_with_its_values_and_times(hub: Hub, options: dict, slot: Callable) -> None:
    batch = some(hub, options, slot)
    before, frame = batch.to_xarray(), batch.to_pandas()
    found = replayed(hub, frame)
    assert found.timestamp_ns.tolist() == before["time"].values.astype(int).tolist()
    for name, variable in before.data_vars.items():
        assert found.data[str(name)].tolist() == variable.values.tolist()


def test_a_frame_of_several_axes_must_be_whole(hub: Hub) -> None:
    frame = some(hub, {"dtype": "f8", "shape": (2, 3), "dims": ("y", "x")}, lambda k: np.full((2, 3), k)).to_pandas()
    with pytest.raises(InvalidArgument, match="no full grid"):
        labhub.replay(frame.iloc[:-1], hub=hub)
    with pytest.raises(InvalidArgument, match="no full grid"):
        labhub.replay(frame.iloc[::-1].sample(frac=1, random_state=1), hub=hub)
    with pytest.raises(InvalidArgument, match="the first must be 'time'"):
        labhub.replay(frame.reorder_levels(["y", "time", "x"]), hub=hub)
