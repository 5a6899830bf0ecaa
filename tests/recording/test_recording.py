"""Channels into a store: everything that was written is there, what is missing is said, and xarray reads it alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from labhub.errors import (
    ChannelNotFound,
    ClosedError,
    ForkedProcessError,
    InvalidArgument,
    NotARecording,
    RecordingError,
    SchemaMismatch,
    StoreExists,
)
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.reading import attributes_of

RECORD = [("pressure", "f8"), ("when", "M8[us]"), ("name", "U4")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


def opened(store: Path, channel: str) -> xr.Dataset:
    return xr.open_zarr(store, group=channel, chunks=None).load()


def test_what_was_written_is_what_xarray_reads(hub: Hub, store: Path) -> None:
    with hub.producer("pump", dtype="f8", units="bar", attrs={"site": "lab 3"}) as p:
        with hub.record("pump", store=store) as rec:
            for k in range(1000):
                p.write(k / 2)
        live = hub.consumer("pump", start="oldest").snapshot(last=1000).to_xarray()
    found = opened(store, "pump")
    xr.testing.assert_equal(found[["value"]].drop_vars(["nbytes", "epoch"]), live)
    assert found["value"].attrs["units"] == "bar"
    assert found.attrs["site"] == "lab 3"
    assert found.attrs["lossless"] == 1
    assert rec.status.stored == rec.status.n_slots == 1000
    assert "gap_seq" not in found


def test_records_keep_their_fields_and_times(hub: Hub, store: Path) -> None:
    with hub.producer("log", dtype=RECORD, units={"pressure": "bar"}) as p, hub.record("log", store=store):
        p.write((1.5, np.datetime64("2026-11-25T12:00:00.000001"), "on"))
    found = opened(store, "log")
    assert found["when"].values[0] == np.datetime64("2026-11-25T12:00:00.000001")
    assert found["name"].values[0] == "on"


def test_blocks_of_samples_are_joined_along_time_and_a_replay_finds_its_slots(hub: Hub, store: Path) -> None:
    with hub.producer("adc", dtype="i2", shape=(100, 3), dims=("time", "lead"), sample_rate=1000) as p:
        with hub.record("adc", store=store):
            for k in range(20):
                p.write(np.full((100, 3), k, "i2"))
            with p.slot() as s:  # a block that was cut short
                s.array[...] = 20
                s.nbytes = 40 * 3 * 2
    found = opened(store, "adc")
    assert found.sizes["time"] == 20 * 100 + 40
    assert found.sizes["slot"] == 21
    assert found["slot_nbytes"].values[-1] == 240
    assert (np.diff(found["time"].values[:100]) == np.timedelta64(1, "ms")).all()
    assert (found["value"].values[:, 1] == found["seq"].values).all()


def test_what_a_lossy_channel_lost_stands_in_the_table_of_gaps(
    hub: Hub, store: Path, wait_until: Callable[..., None]
) -> None:
    with hub.producer("fast", dtype="f8", shape=4096, capacity=4, lossless=False) as p:
        with hub.record("fast", store=store) as rec:
            slots = np.zeros((64, 4096))

            def lost_after_some() -> bool:
                p.write_many(slots)
                return rec.status.missing > 0 and rec.status.n_slots > 8

            wait_until(lost_after_some)
            wait_until(lost_after_some)
            n = p.next_seq
    found = opened(store, "fast")
    seq = found["seq"].values.astype(int)
    jumps = np.flatnonzero(np.diff(seq) > 1)
    inside = found["gap_seq"].values != seq[0]
    assert found["gap_seq"].values[inside].tolist() == seq[jumps + 1].tolist()
    assert found["gap_slots"].values[inside].tolist() == (np.diff(seq)[jumps] - 1).tolist()
    assert found.attrs["lossless"] == 0
    assert rec.status.missing == found["gap_slots"].values.sum()
    assert len(seq) + rec.status.missing == n


def test_several_channels_by_pattern_and_what_happened_meanwhile(hub: Hub, store: Path) -> None:
    with (
        hub.producer("pump.a", dtype="f8") as a,
        hub.producer("pump.b", dtype="i4") as b,
        hub.producer("c", dtype="u1"),
    ):
        with hub.record("pump.*", store=store) as rec:
            assert rec.channels == ("pump.a", "pump.b")
            a.write(1.0)
            rec.mark("valve open")
            b.write(2)
            assert rec.status.state == "recording"
            assert rec.status.free > 0
    tree = xr.open_datatree(store, engine="zarr")
    assert sorted(tree.children) == ["pump.a", "pump.b"]
    (marker,) = tree.attrs["markers"]
    assert marker["label"] == "valve open"
    assert tree.attrs["complete"] is True
    assert tree.attrs["labhub_recording"]["broker"] == "default"
    with pytest.raises(ClosedError, match="has ended"):
        rec.mark("too late")
    assert rec.stop().stored == rec.stop().stored == 2


def test_a_long_recording_is_split(hub: Hub, store: Path, wait_until: Callable[..., None]) -> None:
    with hub.producer("pump", dtype="f8") as p:
        with hub.record("pump", store=store, split_seconds=0.5) as rec:

            def written() -> bool:
                p.write(p.next_seq)
                return len(rec.paths) > 1

            wait_until(written)
            n = p.next_seq
    parts = [opened(path, "pump") for path in rec.paths]
    assert [p.name for p in rec.paths[:2]] == ["run.zarr", "run-0002.zarr"]
    seq = np.concatenate([part["seq"].values for part in parts if "seq" in part])
    assert seq.tolist() == list(range(n))
    assert all(verify(path).complete for path in rec.paths)


def test_it_follows_a_channel_that_comes_back(hub: Hub, store: Path, wait_until: Callable[..., None]) -> None:
    p = hub.producer("pump", dtype="f8")
    with hub.record("pump", store=store) as rec:
        p.write(1.0)
        p.close()
        with hub.producer("pump", dtype="f8") as again:

            def written() -> bool:
                again.write(2.0)
                return rec.status.n_slots > 1

            wait_until(written)
    found = opened(store, "pump")
    assert found["value"].values[0] == 1.0
    assert found["value"].values[-1] == 2.0
    assert found["epoch"].values[-1] > found["epoch"].values[0]


def test_without_follow_it_ends_with_its_channels(hub: Hub, store: Path) -> None:
    p = hub.producer("pump", dtype="f8")
    rec = hub.record("pump", store=store, follow=False)
    p.write(1.0)
    p.close()
    assert rec.wait(timeout=10)
    assert rec.stop().stored == 1


def test_another_schema_ends_the_channel_and_says_so(hub: Hub, store: Path, wait_until: Callable[..., None]) -> None:
    p = hub.producer("pump", dtype="f8")
    with hub.producer("cam", dtype="u1", shape=4) as cam, pytest.raises(RecordingError, match="pump: ") as caught:
        with hub.record("*", store=store) as rec:
            p.write(1.0)
            p.close()
            with hub.producer("pump", dtype="i4") as other:
                wait_until(lambda: rec.errors)
                assert other.write(1) == 0  # the producer does not notice
            cam.write(np.zeros(4, "u1"))
    assert isinstance(caught.value.__cause__, SchemaMismatch)
    assert isinstance(rec.errors["pump"], SchemaMismatch)
    assert rec.status.error == f"pump: {rec.errors['pump']}"
    assert opened(store, "pump")["value"].values.tolist() == [1.0]
    assert "something else" in opened(store, "pump").attrs["recording_error"]
    assert opened(store, "cam").sizes["time"] == 1
    assert verify(store).complete


def test_two_recorders_of_one_channel_record_the_same(hub: Hub, tmp_path: Path) -> None:
    stores = [tmp_path / "a.zarr", tmp_path / "b.zarr"]
    with hub.producer("pump", dtype="f8") as p, hub.record("pump", store=stores[0]):
        with hub.record("pump", store=stores[1]):
            p.write_many(np.arange(100.0))
    first, second = (opened(store, "pump") for store in stores)
    assert first.sizes["time"] == 100
    xr.testing.assert_equal(first, second)


def test_the_clock_of_a_channel_is_compared_with_that_of_the_recorder(hub: Hub, store: Path) -> None:
    with hub.producer("pump", dtype="f8") as p, hub.producer("old", dtype="f8") as old:
        with hub.record("*", store=store):
            p.write(1.0)
            with old.slot() as s:
                s.array[...] = 1.0
                s.timestamp_ns = time.time_ns() - 3_600_000_000_000
    tree = xr.open_datatree(store, engine="zarr")
    before, after = tree.attrs["labhub_recording"]["wall_minus_monotonic_ns"]
    assert abs(before - (time.time_ns() - time.monotonic_ns())) < 10e9
    assert abs(after - before) < 10e9
    assert tree["pump"].attrs["clock_epochs"] == [1]
    (now,), (hour,) = (tree[name].attrs["clock_offset_ns"] for name in ("pump", "old"))
    assert 0 <= now < 10e9
    assert 3600e9 <= hour < 3610e9


@pytest.mark.parametrize(
    "label",
    ["", "Ventil auf: 3 µm\n\t\0", "\udcff", "valve " * 1000, 5],
    ids=["empty", "control", "lone", "long", "int"],
)
def test_a_marker_may_be_any_text(hub: Hub, store: Path, label: object) -> None:
    with hub.producer("pump", dtype="f8"), hub.record("pump", store=store) as rec:
        rec.mark(label)  # type: ignore[arg-type]
    assert xr.open_zarr(store, chunks=None).attrs["markers"][0]["label"] == str(label)
    assert verify(store)


def test_a_forked_child_leaves_the_recording_alone(hub: Hub, store: Path) -> None:
    with hub.producer("pump", dtype="f8") as p:
        with hub.record("pump", store=store) as rec:
            p.write(1.0)
            pid = os.fork()
            if pid == 0:
                refused = 0
                for use in rec.stop, rec.wait, lambda: rec.mark("mine"), lambda: rec.status:
                    try:
                        use()
                    except ForkedProcessError:
                        refused += 1
                rec.__exit__(None, None, None)
                os._exit(0 if refused == 4 and not rec.running else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert rec.running
            p.write(2.0)
    assert rec.status.stored == 2
    assert verify(store).complete


def test_nothing_is_overwritten(hub: Hub, store: Path) -> None:
    store.mkdir()
    (store / "thesis.tex").write_text("precious")
    with hub.producer("pump", dtype="f8"):
        with pytest.raises(StoreExists, match="choose another name"):
            hub.record("pump", store=store)
        assert hub.find("pump").consumers == 0
    assert (store / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("channels", "options", "error"),
    [
        (["pomp"], {}, ChannelNotFound),
        (["nothing.*"], {}, ChannelNotFound),
        ([], {}, InvalidArgument),
        (["pump"], {"compression": "zip"}, InvalidArgument),
        (["pump"], {"split_nbytes": 0}, InvalidArgument),
        (["pump"], {"split_nbytes": "2G"}, InvalidArgument),
        (["pump"], {"split_seconds": -1}, InvalidArgument),
        ([["pump"]], {}, InvalidArgument),
        ([5], {}, InvalidArgument),
    ],
)
def test_bad_input_makes_no_store(hub: Hub, store: Path, channels: list[str], options: dict, error: type) -> None:
    with hub.producer("pump", dtype="f8"), pytest.raises(error):
        hub.record(*channels, store=store, **options)
    assert not store.exists()


def test_slots_of_a_slow_channel_are_readable_while_it_records(
    hub: Hub, store: Path, wait_until: Callable[..., None]
) -> None:
    with hub.producer("pump", dtype="f8") as p, hub.record("pump", store=store):
        p.write(1.0)
        began = time.monotonic()
        wait_until(lambda: "value" in xr.open_zarr(store, group="pump", chunks=None))
        assert opened(store, "pump")["value"].values.tolist() == [1.0]
        assert time.monotonic() - began < 5
        assert not verify(store).complete
        assert verify(store)


def test_what_is_no_recording_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotARecording, match="does not exist"):
        attributes_of(tmp_path / "nothing.zarr")
    xr.Dataset({"x": ("t", np.arange(3))}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(NotARecording, match="no recording of labhub"):
        verify(tmp_path / "other.zarr")
