from __future__ import annotations

import signal
import subprocess

import pandas as pd
import pytest

from labhub.hub import connect
from tests.cli.conftest import COMMAND
from tests.recording.strangers import STRANGERS_KEY, signed_anew


@pytest.fixture
def table(broker, tmp_path):
    path = tmp_path / "thermo.csv"
    path.write_text("time,inside\n" + "".join(f"{k / 10},{20 + k}\n" for k in range(10)))
    return path


def test_a_table_is_replayed_to_its_end(table, labhub):
    done = labhub("replay", str(table), "--speed", "x10", "--prefix", "old.")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "old.thermo: 10 of 10 slots replayed\n"


def test_as_fast_as_its_readers(table):
    command = [*COMMAND, "replay", table, "--speed", "max", "--name", "t"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with connect() as hub:
        hub.wait_for("t", timeout=30)
        with hub.consumer("t", mode="lossless", start="oldest") as c:
            values = [v for b in c.batches(timeout=30, total=10) for v in b.data["inside"]]
    out, hint = process.communicate(timeout=60)
    assert hint == b"waiting for a reader of each of: t\n"
    assert values == list(range(20, 30))
    assert out == b"t: 10 of 10 slots replayed\n"


def test_ctrl_c_ends_it_in_order(table):
    process = subprocess.Popen([*COMMAND, "replay", table, "--speed", "0.001"], stdout=subprocess.PIPE)
    with connect() as hub:
        hub.wait_for("thermo", timeout=30)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert hub.channels() == []
    assert process.returncode == 0
    assert b"of 10 slots replayed" in out


def test_the_unit_of_times_can_be_said(broker, tmp_path, labhub):
    path = tmp_path / "counter.csv"
    path.write_text("time,v\n1000,1\n1010,2\n")
    unclear = labhub("replay", str(path))
    assert unclear.returncode == 1
    assert "time_unit='s', 'ms', 'us' or 'ns' says" in unclear.stderr
    done = labhub("replay", str(path), "--time-unit", "ms")
    assert (done.returncode, done.stdout, done.stderr) == (0, "counter: 2 of 2 slots replayed\n", "")


def test_what_is_left_out_is_said(broker, tmp_path, labhub):
    path = tmp_path / "x.parquet"
    pd.DataFrame({"time": [0.5, 1.5], "v": [1, 2], "[red]odd": [None, "a"]}).to_parquet(path)
    done = labhub("replay", str(path), "--speed", "100")
    assert (done.returncode, done.stdout) == (0, "x: 2 of 2 slots replayed\n")
    assert done.stderr.startswith("x: column '[red]odd' is left out: a value is missing (row 0)")
    assert done.stderr.count("\n") == 1


def test_a_channel_that_failed_is_said(broker, tmp_path, labhub):
    store = tmp_path / "run.zarr"
    with connect() as hub, hub.producer("bad", dtype="f8") as a, hub.producer("good", dtype="f8") as b:
        with hub.record("bad", "good", store=store):
            a.write(1.0)
            b.write(1.0)
    (store / "bad" / "value" / "c" / "0").unlink()
    done = labhub("replay", str(store), "--speed", "100")
    assert (done.returncode, done.stdout) == (1, "bad, good: 1 of 2 slots replayed\n")
    assert done.stderr.startswith("labhub: bad: ")
    assert "value/c/0 is missing" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x.zarr"], 1, "does not exist"),
        (["THERMO", "--speed", "fast"], 2, "is no speed"),
        (["THERMO", "pomp"], 3, "matches"),
    ],
)
def test_wrong_words(table, labhub, words, code, message):
    done = labhub("replay", *(str(table) if w == "THERMO" else w for w in words))
    assert done.returncode == code
    assert message in done.stderr


def test_a_recording_of_somebody_else_is_played_when_its_signer_is_named(broker, tmp_path, labhub):
    store = tmp_path / "run.zarr"
    with connect() as hub, hub.producer("x", dtype="f8") as p, hub.record("x", store=store):
        p.write(1.0)
    signed_anew(store)
    refused = labhub("replay", str(store))
    assert refused.returncode != 0
    assert f"is signed by {STRANGERS_KEY}, which is not your key" in refused.stderr
    assert f"--key {STRANGERS_KEY}" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert f"signed by {STRANGERS_KEY}, which is not your key" in labhub("verify", str(store)).stdout
    for key in (STRANGERS_KEY, "any"):
        done = labhub("replay", str(store), "--key", key, "--speed", "100")
        assert (done.returncode, done.stdout) == (0, "x: 1 of 1 slots replayed\n")
