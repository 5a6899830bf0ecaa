"""A recording runs again: the same slots, the same times, at its own pace or another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labhub
from labhub.errors import ChannelBusy, ChannelNotFound, DamagedStore, InvalidArgument, NotARecording
from labhub.hub import Hub
from tests.replaying.conftest import everything

NESTED = [("p", "f8"), ("when", "M8[us]"), ("inner", [("x", "i2", (2,)), ("tag", "S4")]), ("name", "U3")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


@pytest.mark.parametrize(
    ("options", "slot"),
    [
        ({"dtype": "f8", "units": "bar"}, lambda k: k / 2),
        ({"dtype": NESTED, "units": {"p": "bar"}}, lambda k: (k, np.datetime64(k, "us"), ([k, -k], b"ab"), f"n{k}")),
        ({"dtype": "u1", "shape": (8, 6), "dims": ("y", "x")}, lambda k: np.full((8, 6), k)),
        ({"dtype": [("time", "f8"), ("seq", "i4"), ("nbytes", "i4"), ("gap_x", "i4")]}, lambda k: (k, -k, 2 * k, 3)),
        ({"dtype": [("a/b", "f8"), ("a_b", "i4"), ("..", "i4"), ("x.y", "i4")]}, lambda k: (k, -k, 2 * k, 3)),
        ({"dtype": [("t", "m8[ms]"), ("zarr.json", "?")]}, lambda k: (np.timedelta64(k, "ms"), k % 2 == 0)),
        (
            {"dtype": "f8", "shape": (5, 3), "dims": ("time", "slot"), "sample_rate": 1e4, "units": "days"},
            lambda k: np.full((5, 3), k),
        ),
        (
            {"dtype": "i2", "shape": (50, 3), "dims": ("time", "lead"), "sample_rate": 1e4},
            lambda k: np.full((50, 3), k),
        ),
        (
            {"dtype": "i2", "shape": (3, 50), "dims": ("lead", "time"), "sample_rate": 1e4},
            lambda k: np.full((3, 50), k),
        ),
        (
            {"dtype": [("a", "f4"), ("b", "i4")], "shape": 20, "dims": "time", "sample_rate": 1e4},
            lambda k: [(k, -k)] * 20,
        ),
    ],
)
def test_slots_and_times_are_those_of_the_recording(hub: Hub, store: Path, options: dict, slot: Callable) -> None:
    with hub.producer("x", capacity=256, **options) as p:
        with hub.record("x", store=store):
            for k in range(100):
                p.write(np.array(slot(k), p.schema.dtype) if p.schema.shape else slot(k))
        before = hub.consumer("x", start="oldest").snapshot(last=100)
    with labhub.replay(store, hub=hub, speed=None) as replay:
        after = everything(hub, "x", 100)
        assert replay.wait(timeout=10)
    assert after.data.dtype == before.data.dtype
    assert (after.data == before.data).all()
    assert (after.timestamp_ns == before.timestamp_ns).all()
    assert after.schema.layout_hash == before.schema.layout_hash
    assert (after.schema.units, after.schema.dims, after.schema.sample_rate) == (
        before.schema.units,
        before.schema.dims,
        before.schema.sample_rate,
    )
    xr.testing.assert_equal(after.to_xarray(), before.to_xarray())


def test_a_block_that_was_cut_short_is_short_again(hub: Hub, store: Path) -> None:
    with hub.producer("adc", dtype="i2", shape=(10, 2), dims=("time", "lead"), sample_rate=1e4) as p:
        with hub.record("adc", store=store):
            with p.slot() as s:
                s.array[...] = 1
                s.nbytes = 3 * 2 * 2
            p.write(np.full((10, 2), 2))
    with labhub.replay(store, hub=hub, speed=None):
        found = everything(hub, "adc", 2)
    assert found.nbytes.tolist() == [12, 40]
    assert found.data[0].sum() == 6


def test_the_pace_is_that_of_the_recording_or_a_multiple(hub: Hub) -> None:
    times = pd.date_range("2020-01-01", periods=21, freq="50ms", name="time")
    table = pd.DataFrame({"v": np.arange(21.0)}, index=times)
    took = {}
    for speed in (1.0, 4.0):
        began = time.monotonic()
        with labhub.replay(table, hub=hub, speed=speed, name="t") as r:
            assert r.wait(timeout=20)
            took[speed] = time.monotonic() - began
    assert took[1.0] >= 0.95
    assert 0.2 <= took[4.0] < took[1.0]


def test_times_of_now_and_the_way_back_to_the_original_ones(hub: Hub) -> None:
    times = pd.to_datetime(["2020-01-01", "2020-01-02"])
    table = pd.DataFrame({"v": [1.0, 2.0]}, index=times)
    with labhub.replay(table, hub=hub, speed=None, times="now"):
        found = everything(hub, "replay", 2)
    assert abs(found.timestamp_ns - time.time_ns()).max() < 60e9
    assert found.schema.attrs["replay_first_ns"] == times[0].value


def test_a_short_recording_of_a_fast_channel_takes_a_small_ring(hub: Hub, store: Path) -> None:
    with hub.producer("x", dtype="f4", shape=1, dims="time", sample_rate=1e9, capacity=16) as p:
        with hub.record("x", store=store):
            p.write_many(np.arange(3, dtype="f4").reshape(3, 1))
    with labhub.replay(store, hub=hub, prefix="again.", speed=1e-9), hub.consumer("again.x") as c:
        assert c.capacity == 8


def test_a_csv_file_needs_only_a_column_of_times(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "thermo.csv"
    path.write_text("time,inside,outside,note\n0.0,20.5,3.5,a\n0.1,20.6,3.4,b\n0.2,20.7,3.3,c\n")
    with labhub.replay(path, hub=hub, speed=None) as replay:
        assert replay.channels == ("thermo",)
        found = everything(hub, "thermo", 3).to_xarray()
    assert found["inside"].values.tolist() == [20.5, 20.6, 20.7]
    assert found["time"].values[1] == np.datetime64("1970-01-01T00:00:00.1")


def test_parquet_and_datasets(hub: Hub, tmp_path: Path) -> None:
    times = pd.date_range("2020-01-01", periods=5, freq="s", name="time")
    pd.DataFrame({"v": np.arange(5)}, index=times).to_parquet(tmp_path / "log.parquet")
    with labhub.replay(tmp_path / "log.parquet", hub=hub, speed=None):
        assert everything(hub, "log", 5).data["v"].tolist() == [0, 1, 2, 3, 4]
    images = xr.Dataset(
        {"img": (("y", "time", "x"), np.arange(30).reshape(2, 5, 3), {"units": "counts"})}, {"time": times}
    )
    with labhub.replay(images, hub=hub, speed=None, name="cam"):
        found = everything(hub, "cam", 5)
    assert found.schema.dims == ("y", "x")
    assert found.schema.units == {"value": "counts"}
    assert found.data.tolist() == images["img"].transpose("time", "y", "x").values.tolist()


def test_a_living_channel_is_never_replaced(hub: Hub, store: Path) -> None:
    with hub.producer("x", dtype="f8") as p:
        with hub.record("x", store=store):
            p.write(1.0)
        with pytest.raises(ChannelBusy, match="a prefix lets"):
            labhub.replay(store, hub=hub)
        assert not p.closed
        with labhub.replay(store, hub=hub, prefix="replay.") as replay:
            assert replay.channels == ("replay.x",)
            assert replay.wait(timeout=10)


def test_as_fast_as_its_readers_waits_for_the_first_and_is_stopped_at_once(
    hub: Hub, store: Path, wait_until: Callable[..., None]
) -> None:
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=store):
        p.write_many(np.arange(10.0))
    replay = labhub.replay(store, hub=hub, speed=None)
    wait_until(lambda: replay.status.state == "waiting")
    assert replay.status.n_slots == 0
    assert repr(replay) == "Replay(x: as fast as its readers, waiting)"
    began = time.monotonic()
    replay.stop()
    assert time.monotonic() - began < 5
    assert hub.channels() == []


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        ("nothing.zarr", {}, NotARecording),
        ("nothing.csv", {}, NotARecording),
        (pd.DataFrame({"v": [1.0]}), {}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "note": [{}]}), {}, InvalidArgument),
        (pd.DataFrame({"time": ["never"], "v": [1]}), {}, InvalidArgument),
        (pd.DataFrame({"time": [], "v": []}), {}, InvalidArgument),
        (xr.Dataset({"v": ("t", [1.0])}), {}, InvalidArgument),
        (42, {}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "v": [1]}), {"speed": 0}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "v": [1]}), {"speed": float("nan")}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "v": [1]}), {"speed": "fast"}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "v": [1]}), {"times": "mine"}, InvalidArgument),
        (pd.DataFrame({"time": [0.0], "v": [1]}), {"name": "../x"}, InvalidArgument),
    ],
)
def test_bad_input_opens_no_channel(hub: Hub, source: object, options: dict, error: type) -> None:
    with pytest.raises(error):
        labhub.replay(source, hub=hub, **options)
    assert hub.channels() == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda chunk: chunk.write_bytes(chunk.read_bytes()[::-1]), "x/value/c/0 was changed"),
        (Path.unlink, "x/value/c/0 is missing"),
    ],
)
def test_a_damaged_chunk_is_never_replayed(
    hub: Hub, store: Path, spoil: Callable[[Path], object], words: str, wait_until: Callable[..., None]
) -> None:
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=store):
        p.write_many(np.zeros(10))  # what Zarr gives for a chunk that is not there
    spoil(store / "x" / "value" / "c" / "0")
    with labhub.replay(store, hub=hub, speed=1000.0) as replay, pytest.raises(DamagedStore, match=words):
        replay.wait(timeout=10)
    assert replay.status.state == "failed"
    assert replay.status.n_slots == 0
    wait_until(lambda: hub.channels() == [])


def test_a_recording_with_a_damaged_manifest_or_root_is_not_replayed(hub: Hub, store: Path) -> None:
    with hub.producer("x", dtype="f8") as p, hub.record("x", store=store):
        p.write(1.0)
    root, manifest = store / "zarr.json", store / "manifest.jsonl"
    for file, begin in (root, b'{ "zarr_format"'), (manifest, b"{"):
        whole = file.read_bytes()
        file.write_bytes(begin + whole[len(b'{"zarr_format"') if file is root else 0 :])
        with pytest.raises(DamagedStore):
            labhub.replay(store, hub=hub)
        file.write_bytes(whole)
    assert hub.channels() == []


def test_a_recording_of_nothing(hub: Hub, store: Path) -> None:
    with hub.producer("x", dtype="f8"), hub.record("x", store=store):
        pass
    with pytest.raises(InvalidArgument, match="holds no slots"):
        labhub.replay(store, hub=hub)


def test_a_forked_child_leaves_the_replay_alone(hub: Hub) -> None:
    table = pd.DataFrame({"time": [0.0, 0.2], "v": [1.0, 2.0]})
    with labhub.replay(table, hub=hub) as replay:
        pid = os.fork()
        if pid == 0:
            replay.stop()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert replay.wait(timeout=10)
    assert replay.status.n_slots == 2


def test_a_name_that_is_not_recorded(hub: Hub, store: Path) -> None:
    with hub.producer("pump", dtype="f8") as p, hub.record("pump", store=store):
        p.write(1.0)
    with pytest.raises(ChannelNotFound, match="did you mean pump"):
        labhub.replay(store, "pomp", hub=hub)
