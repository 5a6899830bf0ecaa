from __future__ import annotations

import signal
import subprocess

import pytest

from labhub.hub import connect
from tests.cli.conftest import COMMAND


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
