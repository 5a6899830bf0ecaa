from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess

import pytest
import xarray as xr

from labhub.hub import connect
from tests.cli.conftest import COMMAND


@pytest.fixture
def producer(broker):
    with connect() as hub, hub.producer("pump", dtype="f8", units="bar") as producer:
        yield producer


@pytest.fixture
def store(tmp_path):
    return tmp_path / "run.zarr"


def start(*words, **options):
    return subprocess.Popen([*COMMAND, "record", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def recorded_by(process, producer, wait_until, end=signal.SIGINT):
    """Let it record a little, then end it; what it printed."""
    wait_until(lambda: producer.stats()["consumers"] == 1, 30)
    for k in range(100):
        producer.write(k)
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_records_until_it_is_ended(producer, store, wait_until, end):
    code, out, err = recorded_by(start("pump", "-o", store, "--json"), producer, wait_until, end)
    assert (code, err) == (0, "")
    assert json.loads(out)["stored"] == 100
    assert json.loads(out)["stores"] == [str(store)]
    assert xr.open_zarr(store, group="pump", chunks=None)["value"].values.tolist() == list(range(100))


def test_impatience_ends_it_without_a_complaint(producer, store, wait_until):
    process = start("pump", "-o", store)
    wait_until(lambda: producer.stats()["consumers"] == 1, 30)
    for _ in range(3):  # to ask for an end, to interrupt the wait for the next look, and the end in order
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_line_that_is_typed_becomes_a_marker(producer, store, wait_until):
    here, there = pty.openpty()
    process = start("pump", "-o", store, stdin=there)
    wait_until(lambda: producer.stats()["consumers"] == 1, 30)
    os.write(here, b"valve open\n")
    wait_until(lambda: (store / "zarr.json").exists() and xr.open_zarr(store, chunks=None).attrs["markers"], 30)
    code, out, _ = recorded_by(process, producer, wait_until)
    os.close(here)
    os.close(there)
    assert code == 0
    assert "100 slots stored" in out
    assert [m["label"] for m in xr.open_zarr(store, chunks=None).attrs["markers"]] == ["valve open"]


def test_it_stops_by_itself_and_is_proven(producer, store, labhub):
    done = labhub("record", "pump", "-o", str(store), "--seconds", "0.3", "--title", "pump 3, new valve")
    assert (done.returncode, done.stderr) == (0, "")
    proven = labhub("verify", str(store))
    assert proven.returncode == 0
    assert "title: pump 3, new valve\nrun: " in proven.stdout
    assert "\ncomplete: " in proven.stdout
    assert "is what was recorded" in proven.stdout
    assert "signed by you" in proven.stdout
    (store / "zarr.json").write_text((store / "zarr.json").read_text().replace("bar", "psi").replace("pump", "pomp"))
    broken = labhub("verify", str(store), "--json")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["damaged"] == ["zarr.json: is not the one that was signed"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pomp"], 3, "did you mean pump?"),
        (["pump", "--split-size", "2X"], 2, "is no size"),
        ([], 2, "Missing argument"),
    ],
)
def test_wrong_words_make_no_store(producer, store, labhub, words, code, message):
    done = labhub("record", *words, "-o", str(store))
    assert done.returncode == code
    assert message in done.stderr
    assert not store.exists()


def test_what_is_there_is_not_overwritten_and_what_is_not_ours_is_not_proven(producer, store, labhub):
    store.mkdir()
    assert "choose another name" in labhub("record", "pump", "-o", str(store)).stderr
    assert "is no recording" in labhub("verify", str(store)).stderr


def test_a_channel_that_cannot_be_recorded_is_named_at_once_and_at_the_end(producer, store, wait_until):
    with connect() as hub, hub.producer("bad", dtype=[("[/x]" + "y" * 300, "f8")]):
        process = start("pump", "bad", "-o", store)
        first = process.stderr.readline().decode()
        assert first.startswith("bad is not recorded: ")
        assert "[/x]" in first
        code, out, err = recorded_by(process, producer, wait_until)
    assert (code, out) == (1, "")
    assert err.startswith("labhub: not every channel was recorded to its end: bad: ")
    assert err.endswith("Stored: 100 slots of pump\n")
    assert xr.open_zarr(store, group="pump", chunks=None).sizes["time"] == 100
