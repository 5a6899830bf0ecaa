"""Recording and replaying from a notebook, in real files, through a real broker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from labhub.hub import connect
from labhub.recording import verify


@pytest.fixture(autouse=True)
def here(broker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_record_mark_stop_and_replay(run: Callable[[str], Any], wait_until: Callable[..., None]) -> None:
    with connect() as hub:
        with hub.producer("pump.a", dtype="f8") as p:
            assert repr(run("%hub_record start run.zarr pump.*")) == "Recording('run.zarr', pump.a: recording)"
            p.write_many(np.arange(10.0))
            run("%hub_record mark valve open")
            assert repr(run("%hub_record stop")) == "Recording('run.zarr', pump.a: stopped)"
            assert run("%hub_record").status.stored == 10
        assert xr.open_zarr("run.zarr", chunks=None).attrs["markers"][0]["label"] == "valve open"
        assert repr(run("%hub_replay start run.zarr --speed max --prefix old.")).startswith(
            "Replay(old.pump.a: as fast"
        )
        with hub.consumer("old.pump.a", mode="lossless", start="oldest") as c:
            assert [v for b in c.batches(timeout=10, total=10) for v in b.data] == list(range(10))
        wait_until(lambda: run("%hub_replay").status.state == "ended")
        run("%hub_replay stop")


def test_unloading_closes_the_recording_in_order(run: Callable[[str], Any], shell: Any) -> None:
    with connect() as hub, hub.producer("pump", dtype="f8") as p:
        run("%hub_record start run.zarr pump")
        p.write(1.0)
        shell.run_line_magic("unload_ext", "labhub")
        shell.run_line_magic("load_ext", "labhub")
    assert xr.open_zarr("run.zarr", chunks=None).attrs["complete"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%hub_record", "nothing is recorded"),
        ("%hub_record stop", "nothing is recorded"),
        ("%hub_record start", "takes a store and channels"),
        ("%hub_record start run.zarr pomp", "no channel matches 'pomp'"),
        ("%hub_record begin", "choose one of start, stop, mark, status"),
        ("%hub_replay", "nothing is replayed"),
        ("%hub_replay start", "takes a recording"),
        ("%hub_replay start nothing.zarr", "does not exist"),
        ("%hub_replay start nothing.zarr --speed fast", "takes a number or max"),
    ],
)
def test_wrong_words_are_one_line(
    run: Callable[[str], Any], capsys: pytest.CaptureFixture, line: str, message: str
) -> None:
    assert run(line) is None
    assert message in capsys.readouterr().err


def test_a_title_is_signed_and_a_signer_can_be_named(run: Callable[[str], Any]) -> None:
    with connect() as hub:
        with hub.producer("pump", dtype="f8") as p:
            run('%hub_record start run.zarr pump --title "pump 3, new valve"')
            p.write(1.0)
            run("%hub_record stop")
        proof = verify("run.zarr")
        assert proof.title == "pump 3, new valve"
        replay = run(f"%hub_replay start run.zarr --prefix old. --key {proof.public_key}")
        assert replay.wait(timeout=10)
        run("%hub_replay stop")


def test_the_unit_of_a_column_of_times_can_be_said(run: Callable[[str], Any], here: Path) -> None:
    (here / "ticks.csv").write_text("time,v\n0,1\n500,2\n")
    with connect():
        replay = run("%hub_replay start ticks.csv --time-unit ms --speed 100")
        assert replay.wait(timeout=10)
