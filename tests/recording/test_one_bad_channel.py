"""A channel that cannot be recorded, from the beginning or any longer, costs the other channels nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from labhub.errors import InvalidArgument, LabHubError, RecordingError, SchemaMismatch
from labhub.hub import Hub
from labhub.recording import verify
from labhub.recording.channel import ChannelReader
from tests.bad_channels import junk_segment

UNSTORABLE: dict[str, Any] = {
    "longdouble": np.longdouble,
    "clongdouble": np.clongdouble,
    "swapped longdouble": np.dtype(np.longdouble).newbyteorder(),
    "generic timedelta": "m8",
    "generic datetime": "M8",
    "long name": [("x" * 300, "f8")],
    "name of many bytes": [("µ" * 150, "f8")],
    "nested longdouble": [("a", [("b", np.longdouble)])],
    "subarray of longdouble": [("a", np.longdouble, (2,))],
    "nested long name": [("x" * 150, [("y" * 150, "f8")])],
}
OWN_FILES = ("zarr.json", "manifest.jsonl", "b3sums.txt")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


def values(store: Path, channel: str) -> list[Any]:
    return xr.open_zarr(store, group=channel, chunks=None)["value"].values.tolist()


@pytest.mark.parametrize("dtype", UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_a_channel_of_a_dtype_that_cannot_be_stored_is_left_out_and_said(hub: Hub, store: Path, dtype: Any) -> None:
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype=dtype):
        with pytest.raises(RecordingError, match=r"bad: .*Stored: 3 slots of good") as caught:
            with hub.record("good", "bad", store=store) as rec:
                assert rec.channels == ("good",)
                assert isinstance(rec.errors["bad"], InvalidArgument)
                assert rec.status.state == "recording"
                assert rec.status.error == f"bad: {rec.errors['bad']}"
                assert repr(rec) == "Recording('run.zarr', good: recording; bad is not recorded)"
                assert "bad: " in rec._repr_html_()
                assert hub.find("bad").consumers == 0
                good.write_many([1.0, 2.0, 3.0])
        assert caught.value.__cause__ is rec.errors["bad"]
    assert values(store, "good") == [1.0, 2.0, 3.0]
    assert verify(store)
    assert verify(store).complete
    tree = xr.open_datatree(store, engine="zarr")
    assert list(tree.children) == ["good"]
    assert tree.attrs["labhub_recording"]["left_out"] == {"bad": str(rec.errors["bad"])}


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_channel_that_has_the_name_of_a_file_of_the_stores_is_left_out(hub: Hub, store: Path, name: str) -> None:
    with hub.producer("good", dtype="f8") as good, hub.producer(name, dtype="f8") as bad:
        with pytest.raises(RecordingError, match="another name"):
            with hub.record("*", store=store) as rec:
                assert list(rec.errors) == [name]
                good.write(1.0)
                bad.write(2.0)
    assert values(store, "good") == [1.0]
    assert verify(store).complete


def test_the_only_channel_that_cannot_be_recorded_is_an_error_at_the_start(hub: Hub, store: Path) -> None:
    with (
        hub.producer("bad", dtype=np.longdouble),
        pytest.raises(InvalidArgument, match=r"'value'.*(float128|longdouble)"),
    ):
        hub.record("bad", store=store)
    assert not store.exists()


def test_several_channels_of_which_none_can_be_recorded_are_an_error_at_the_start(hub: Hub, store: Path) -> None:
    with hub.producer("a", dtype=np.longdouble), hub.producer("b", dtype="m8"):
        with pytest.raises(RecordingError, match=r"none of the channels.*a: .*b: "):
            hub.record("*", store=store)
        assert hub.find("a").consumers == hub.find("b").consumers == 0
    assert not store.exists()


def test_a_channel_whose_segment_cannot_be_read_at_the_start_is_left_out(hub: Hub, store: Path) -> None:
    """The broker still knows it."""
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype="f8"):
        with junk_segment(hub, "bad"), pytest.raises(RecordingError, match="bad: "):
            with hub.record("good", "bad", store=store) as rec:
                assert list(rec.errors) == ["bad"]
                good.write(1.0)
    assert values(store, "good") == [1.0]
    assert verify(store).complete


def in_the_way(store: Path, what: str) -> None:
    """Put something where an array of the channel "bad" goes, before anything of it was written."""
    if what == "array":
        zarr.create_array(zarr.storage.LocalStore(store), name="bad/value", shape=(1,), dtype="f8")
    elif what == "file":
        (store / "bad" / "value").write_text("precious")
    else:
        (store / "bad" / "seq").write_text("precious")


@pytest.mark.parametrize("what", ["array", "file", "file for seq"])
def test_an_array_that_cannot_be_written_ends_its_channel_only(
    hub: Hub, store: Path, wait_until: Callable[..., None], failures: list[str], what: str
) -> None:
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype="f8", capacity=64) as bad:
        with pytest.raises(RecordingError, match=r"bad: .*0 slots of bad") as caught:
            with hub.record("good", "bad", store=store) as rec:
                in_the_way(store, what)
                bad.write(1.0)
                n = 0

                def ended() -> bool:
                    nonlocal n
                    n += 1
                    good.write(n)
                    return "bad" in rec.errors

                wait_until(ended)
                assert rec.status.state == "recording"
                assert rec.status.error.startswith("bad: ")
                wait_until(lambda: not hub.find("bad").consumers)
                began = time.monotonic()
                bad.write_many(np.zeros(1000))  # nobody holds it up
                assert time.monotonic() - began < 5
                good.write(-1.0)
        assert caught.value.__cause__ is rec.errors["bad"]
        assert isinstance(rec.errors["bad"], RecordingError)
    assert values(store, "good") == [*map(float, range(1, n + 1)), -1.0]
    assert verify(store).complete
    assert verify(store)
    assert xr.open_zarr(store, group="bad", chunks=None).attrs["recording_error"] == str(rec.errors["bad"])
    assert len(failures) == 1
    assert "recording, bad" in failures[0]


def test_two_of_four_end_and_what_came_before_is_stored(hub: Hub, store: Path, wait_until: Callable[..., None]) -> None:
    first, second = hub.producer("a", dtype="f8"), hub.producer("b", dtype="f8")
    with hub.producer("c", dtype="f8") as c, hub.producer("d", dtype=np.longdouble):
        with pytest.raises(RecordingError, match=r"(?s)a: .*1 slots of a, 2 slots of b, 3 slots of c") as caught:
            with hub.record("*", store=store) as rec:
                first.write(1.0)
                second.write_many([1.0, 2.0])
                first.close()
                second.close()
                with hub.producer("a", dtype="i4"), hub.producer("b", dtype="f4"):
                    wait_until(lambda: {"a", "b"} <= set(rec.errors))
                    assert sorted(rec.errors) == ["a", "b", "d"]
                c.write_many([1.0, 2.0, 3.0])
    assert "d: " in str(caught.value)
    assert isinstance(rec.errors["a"], SchemaMismatch)
    assert all(isinstance(error, LabHubError) for error in rec.errors.values())
    assert values(store, "c") == [1.0, 2.0, 3.0]
    assert verify(store).complete


def test_each_store_of_a_split_recording_goes_on_without_it(
    hub: Hub, store: Path, wait_until: Callable[..., None], failures: list[str]
) -> None:
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype="f8") as bad:
        with pytest.raises(RecordingError, match="bad: "):
            with hub.record("good", "bad", store=store, split_seconds=0.3) as rec:
                in_the_way(store, "array")
                bad.write(1.0)

                def split() -> bool:
                    good.write(good.next_seq)
                    return len(rec.paths) > 2

                wait_until(split)
                n = good.next_seq
    found = [xr.open_zarr(path, group="good", chunks=None) for path in rec.paths]
    assert np.concatenate([ds["seq"].values for ds in found if "seq" in ds]).tolist() == list(range(n))
    assert all(verify(path).complete and verify(path) for path in rec.paths)
    assert len(failures) == 1


def test_a_store_that_is_removed_still_ends_all(hub: Hub, store: Path, wait_until: Callable[..., None]) -> None:
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype=np.longdouble):
        rec = hub.record("good", "bad", store=store)
        os.rename(store, store.with_suffix(".moved"))

        def failed() -> bool:
            good.write(1.0)
            return rec.status.state == "failed"

        wait_until(failed)
        assert "removed, moved or replaced" in rec.status.error
        assert "bad: " in rec.status.error
        with pytest.raises(RecordingError, match="ended early"):
            rec.stop()


@pytest.mark.parametrize("kind", [KeyError, MemoryError, StopIteration, OSError])
def test_an_error_that_nobody_has_foreseen_ends_the_channel_that_is_read(
    hub: Hub, store: Path, wait_until: Callable[..., None], monkeypatch: Any, failures: list[str], kind: type[Exception]
) -> None:
    """Nothing real is known to do this."""
    error = kind("odd")  # made here, as pytest keeps parameters, with the trace and all that it holds, to its end
    following = ChannelReader._next

    def odd(self: ChannelReader) -> Any:
        batch = following(self)
        if self.channel == "bad" and batch is not None:
            raise error
        return batch

    monkeypatch.setattr(ChannelReader, "_next", odd)
    with hub.producer("good", dtype="f8") as good, hub.producer("bad", dtype="f8") as bad:
        with pytest.raises(RecordingError, match=r"bad: .*1 slots of good, 0 slots of bad"):
            with hub.record("good", "bad", store=store) as rec:
                good.write(1.0)
                bad.write(1.0)
                wait_until(lambda: rec.errors)
                assert rec.running
                assert rec.errors["bad"].__cause__ is error
                wait_until(lambda: not hub.find("bad").consumers)
    assert values(store, "good") == [1.0]
    assert verify(store).complete
    assert len(failures) == 1
    assert xr.open_zarr(store, group="bad", chunks=None).attrs["recording_error"] == str(rec.errors["bad"])
