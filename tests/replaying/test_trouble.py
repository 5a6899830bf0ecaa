"""What goes wrong while a replay runs: it is told, and it ends one channel only."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labhub
from labhub.errors import DamagedStore, InvalidName, LabHubError
from labhub.hub import Hub
from tests.replaying.conftest import everything


@pytest.fixture
def store(hub: Hub, tmp_path: Path) -> Path:
    """A recording of two channels."""
    path = tmp_path / "run.zarr"
    with hub.producer("bad", dtype="f8") as a, hub.producer("good", dtype="f8") as b:
        with hub.record("bad", "good", store=path):
            for k in range(10):
                a.write(float(k))
                b.write(float(k))
    return path


@pytest.mark.parametrize(("array", "total"), [("value", 20), ("time", 10)])
def test_a_damaged_channel_does_not_end_the_others(hub: Hub, store: Path, array: str, total: int) -> None:
    (store / "bad" / array / "c" / "0").unlink()
    with labhub.replay(store, hub=hub, speed=1e6) as replay:
        with pytest.raises(DamagedStore, match=f"bad/{array}"):
            replay.wait(timeout=10)
    assert replay.channels == ("bad", "good")
    status = replay.status
    assert (status.state, status.n_slots, status.total) == ("failed", 10, total)
    assert status.error.startswith("bad: ")
    assert "good: " not in status.error


def test_what_is_left_of_a_damaged_recording_is_read_whole(hub: Hub, store: Path) -> None:
    (store / "bad" / "time" / "c" / "0").unlink()
    with labhub.replay(store, hub=hub, speed=None):
        assert everything(hub, "good", 10).data.tolist() == list(range(10))


def test_a_recording_of_which_nothing_is_left_is_refused(hub: Hub, store: Path) -> None:
    (store / "bad" / "time" / "c" / "0").unlink()
    with pytest.raises(DamagedStore):
        labhub.replay(store, "bad", hub=hub)
    assert hub.channels() == []


def test_a_channel_that_cannot_be_opened_is_left_out(hub: Hub, tmp_path: Path) -> None:
    long = "x" * 100
    with hub.producer("short", dtype="f8") as a, hub.producer(long, dtype="f8") as b:
        with hub.record("short", long, store=tmp_path / "run.zarr"):
            a.write(1.0)
            b.write(1.0)
    with labhub.replay(tmp_path / "run.zarr", hub=hub, prefix="p" * 50, speed=1e6) as replay:
        with pytest.raises(InvalidName):
            replay.wait(timeout=10)
    assert replay.status.n_slots == 1
    with pytest.raises(InvalidName):
        labhub.replay(tmp_path / "run.zarr", hub=hub, prefix="../")
    assert hub.channels() == []


def test_any_error_of_its_thread_is_told(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: np.ndarray) -> np.ndarray:
        raise OverflowError("the detector's file is gone")

    array = pytest.importorskip("dask.array").zeros(2).map_blocks(broken, dtype="f8", meta=np.empty(0))
    source = xr.Dataset({"v": ("time", array)}, {"time": [0.5, 1.5]})
    with caplog.at_level(logging.ERROR, "labhub.replaying"):
        with labhub.replay(source, hub=hub) as replay:
            with pytest.raises(LabHubError, match="'replay' ended early: OverflowError: the detector's") as caught:
                replay.wait(timeout=10)
    assert isinstance(caught.value.__cause__, OverflowError)
    assert (replay.status.state, replay.status.n_slots) == ("failed", 0)
    assert replay.status.error == "replay: OverflowError: the detector's file is gone"
    assert "the detector's file is gone" in caplog.text


def test_one_that_was_stopped_has_not_written_everything(hub: Hub) -> None:
    replay = labhub.replay(pd.DataFrame({"time": [1.0, 1e6], "v": [1, 2]}), hub=hub)
    assert not replay.wait(timeout=0.01)
    replay.stop()
    assert not replay.wait(timeout=10)
    assert replay.status.state == "ended"


@pytest.mark.parametrize(("last", "speed"), [(9e9, 1.0), (2.0, 1e-300), (9e9, 1e-9)])
def test_a_slot_that_is_due_in_centuries_is_waited_for(
    hub: Hub, wait_until: Callable[..., None], last: float, speed: float
) -> None:
    replay = labhub.replay(pd.DataFrame({"time": [-9e9, last], "v": [1, 2]}), hub=hub, speed=speed)
    wait_until(lambda: replay.status.n_slots == 1)
    assert (replay.status.state, replay.status.error) == ("playing", "")
    began = time.monotonic()
    replay.stop()
    assert time.monotonic() - began < 5


@pytest.mark.timeout(method="thread")  # the other one has this very timer
def test_an_interrupt_ends_the_wait_only(hub: Hub) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with labhub.replay(pd.DataFrame({"time": [1.0, 2.0], "v": [1, 2]}), hub=hub) as replay:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                replay.wait(60)
            assert replay.running
            assert replay.wait(timeout=20)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert replay.status.n_slots == 2
