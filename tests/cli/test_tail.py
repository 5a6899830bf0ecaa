from __future__ import annotations

import json
import math
import re
import signal
import subprocess

import numpy as np
import pytest

from labhub.cli.slots import line_of, value_of
from labhub.hub import connect
from labhub.schema import Schema
from tests.cli.conftest import COMMAND

RECORD = [("pressure", "f8"), ("on", "?"), ("inner", [("x", "i2"), ("name", "S4")])]


@pytest.fixture
def producer(broker):
    with connect() as hub, hub.producer("pump", dtype=RECORD, units={"pressure": "mbar"}, capacity=8) as producer:
        yield producer


def follow(*words: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "tail", "pump", "-f", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_last_slots_one_a_line(producer, labhub):
    assert labhub("tail", "pump").stdout == ""
    for k in range(20):
        producer.write((k, k % 2 == 1, (k, b"ab")))
    shown = labhub("tail", "pump", "-n", "2")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    expected = rf"{time}  18  pressure 18 mbar  on False  inner\.x 18  inner\.name 'ab'\n{time}  19  .*\n"
    assert re.fullmatch(expected, shown.stdout), shown.stdout
    assert labhub("tail", "pump", "-n", "100").stdout.count("\n") == 8


def test_json_lines_with_chosen_fields_and_null_for_what_is_no_number(producer, labhub):
    for value in (1.5, math.nan, math.inf):
        producer.write((value, True, (1, b"\xff")))
    shown = labhub("tail", "pump", "--json", "--fields", "pressure, inner.name")
    records = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [record["values"]["pressure"] for record in records] == [1.5, None, None]
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert records[0]["values"]["inner.name"] == r"\xff"
    assert set(records[0]) == {"time", "timestamp_ns", "seq", "epoch", "values"}
    wrong = labhub("tail", "pump", "--fields", "presure")
    assert (wrong.returncode, wrong.stderr) == (1, "labhub: a slot has no field 'presure'; did you mean 'pressure'?\n")


def test_each_field_and_its_own_unit(broker, labhub):
    dtype = [("p", [("x", "f4"), ("y", "f4")]), ("p.x", "i4"), ("long", "g")]
    units = {"p": "mm", "p.y": "deg", "p.x": "counts"}
    with connect() as hub, hub.producer("odd", dtype=dtype, units=units) as producer:
        producer.write(((1.5, 2.5), 7, np.longdouble("0.5")))
        assert "  p.x_ 1.5 mm  p.y 2.5 deg  p.x 7 counts  long 0.5\n" in labhub("tail", "odd").stdout
        values = json.loads(labhub("tail", "odd", "--json").stdout)["values"]
        assert values == {"p.x_": 1.5, "p.y": 2.5, "p.x": 7, "long": 0.5}
        assert "units of p.y" in labhub("info", "odd").stdout


def test_following_to_the_end_of_the_stream(producer):
    producer.write((0, True, (0, b"")))
    with follow("--json") as process:
        assert json.loads(process.stdout.readline())["seq"] == 0
        for k in range(1, 5):
            producer.write((k, True, (0, b"")))
            assert json.loads(process.stdout.readline())["seq"] == k
        producer.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_what_was_lost_is_a_line_of_its_own(producer, wait_until):
    producer.write((0, True, (0, b"")))
    with follow("--json") as process:
        assert json.loads(process.stdout.readline())["seq"] == 0
        process.send_signal(signal.SIGSTOP)
        for k in range(1, 101):
            producer.write((k, True, (0, b"")))
        process.send_signal(signal.SIGCONT)
        producer.close()
        records = [json.loads(line) for line in process.stdout]
    lost = sum(record.get("lost", 0) for record in records)
    seqs = [record["seq"] for record in records if "seq" in record]
    assert lost >= 92  # the ring holds 8
    assert lost + len(seqs) == 100
    assert seqs == sorted(set(seqs))


def test_ctrl_c_is_130(producer):
    producer.write((0, True, (0, b"")))
    with follow() as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "Traceback" not in process.stderr.read()


def test_a_closed_pipe_ends_it_quietly(producer, wait_until):
    producer.write((0, True, (0, b"")))
    with follow() as process:
        assert process.stdout.readline()
        process.stdout.close()

        def ended() -> bool:
            producer.write((1, True, (0, b"")))
            return process.poll() is not None

        wait_until(ended)
        assert (process.returncode, process.stderr.read()) == (0, "")


def test_arrays_in_short():
    large = np.arange(32.0).reshape(4, 8)
    large[0, 0] = math.nan
    assert value_of(large) == {"shape": [4, 8], "dtype": "float64", "min": 1.0, "mean": 16.0, "max": 31.0}
    assert value_of(np.full(20, math.nan))["mean"] is None
    assert value_of(np.array(["x"] * 20)) == {"shape": [20], "dtype": "<U1"}
    assert value_of(np.arange(3)) == [0, 1, 2]
    assert value_of(np.asarray(1 + 2j)) == [1.0, 2.0]
    assert value_of(np.asarray("2026-01-01", "M8[s]")) == "2026-01-01T00:00:00"
    assert value_of(np.full(20, 255, "u1"))["mean"] == 255.0
    assert value_of(np.array([1.5, np.inf], "g")) == [1.5, math.inf]
    assert value_of(np.asarray("1e4000", "g")) == "1e+4000"
    assert value_of(np.asarray(1 + 2j, "G")) == [1.0, 2.0]
    record = {"time": "T", "seq": 7, "values": {"a": value_of(large), "b": [1, 2.5]}, "nbytes": 3}
    schema = Schema(np.dtype([("a", "f8", (4, 8)), ("b", "f8", 2)]), units={"a": "V"})
    assert line_of(record, schema) == "T  7  a float64[4, 8] min 1 mean 16 max 31 V  b [1 2.5]  (3 of 272 bytes)"
