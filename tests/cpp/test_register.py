"""``labhub register``: what it accepts, what it refuses, and what the broker then knows."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labhub import Schema, _native, liveness
from labhub.cli.register import metadata_of, parse_schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.diagnostics import diagnose
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import IncompatibleSegment, InvalidArgument, SchemaMismatch
from labhub.hub import connect, start_broker, stop_broker
from tests.cpp.conftest import run
from tests.faults.children import Child

FIELDS = "[('t', '<f8'), ('x', '<f4')]"
POINT = Schema.infer(dtype=[("t", "<f8"), ("x", "<f4")])


def labhub(*words: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "labhub.cli", *words, seconds=60)


def undeclared(slot_nbytes: int, name: str = "x") -> _native.Producer:
    """Open a producer that says nothing of its slots but their size, as a C++ program may."""
    return _native.Producer(
        segment_directory(), name, capacity=4, slot_nbytes=slot_nbytes, schema_hash=bytes(32), sync_policy=0
    )


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        (FIELDS, POINT),
        ("<f8", Schema.infer(dtype="<f8")),
        ("f4", Schema.infer(dtype="f4")),
        ("('u2', (3,))", Schema.infer(dtype="u2", shape=3)),
        (POINT.to_json(), POINT),
        ("[('t', '<f8'), ('v', '<i2', (2, 2))]", Schema.infer(dtype=[("t", "<f8"), ("v", "<i2", (2, 2))])),
    ],
)
def test_forms_of_a_schema(text: str, schema: Schema, tmp_path) -> None:
    assert parse_schema(text) == schema
    (tmp_path / "schema").write_text(text + "\n")
    assert parse_schema(f"@{tmp_path / 'schema'}") == schema


def test_units() -> None:
    assert parse_schema(FIELDS, units="V").units == {"t": "V", "x": "V"}
    assert parse_schema(FIELDS, units="t=s, x=mm").units == {"t": "s", "x": "mm"}
    with pytest.raises(InvalidArgument, match="the fields are t, x"):
        parse_schema(FIELDS, units="y=mm")


def test_align_lays_out_as_a_compiler_does() -> None:
    assert (parse_schema(FIELDS).slot_nbytes, parse_schema(FIELDS, align=True).slot_nbytes) == (12, 16)


@pytest.mark.parametrize(
    "text",
    [
        *("", "O", "nonsense", "[", "[('t',", "(1, 2)", "(" * 100_000, "{}", '{"dtype": 1}', "@/no/such/file"),
        *("[('t', open('/etc/passwd').read())]", "[('t', '<f8'), ('t', '<f8')]"),
    ],
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_schema(text)


def test_metadata_has_the_keys_of_a_producer_of_ours() -> None:
    with open_producer("x", POINT, capacity=4) as p:
        expected = p.metadata() | liveness.place_of(p.directory)
        assert metadata_of(diagnose("x"), POINT, p.directory) == expected


def test_an_undeclared_segment_is_read_with_a_schema_of_its_size() -> None:
    producer = undeclared(12)
    try:
        with open_consumer("x", POINT) as c:
            producer.write(bytes(8) + b"\x00\x00\x80\x3f", -1, -1)
            assert next(c.batches(timeout=5)).data.tolist() == [(0.0, 1.0)]
        with pytest.raises(IncompatibleSegment, match="slot_nbytes 12, not 8"):
            open_consumer("x", Schema.infer(dtype="f8"))
    finally:
        producer.close()
    with open_producer("x", POINT), pytest.raises(SchemaMismatch):
        open_consumer("x", Schema.infer(dtype="u4", shape=3))


def test_a_registered_channel_is_found_and_read(broker) -> None:
    producer = undeclared(12)
    try:
        shown = labhub("register", "x", "--schema", FIELDS, "--units", "t=s,x=mm")
        assert (shown.returncode, shown.stderr) == (0, "")
        with connect() as hub, hub.consumer("x", start="oldest") as c:
            assert hub.find("x").units == {"t": "s", "x": "mm"}
            producer.write(bytes(12), -1, -1)
            assert next(c.batches(timeout=5)).data.tolist() == [(0.0, 0.0)]
    finally:
        producer.close()


def test_one_that_stays_tells_the_next_broker_and_ends_with_the_producer(broker, wait_until) -> None:
    producer = undeclared(12)
    command = [sys.executable, "-m", "labhub.cli", "register", "x", "--schema", FIELDS, "--stay"]
    with connect() as hub, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as staying:
        try:
            hub.wait_for("x", 30)
            stop_broker()
            start_broker(endpoint="tcp://127.0.0.1:0")
            assert hub.wait_for("x", 30).units == {}
            assert staying.poll() is None
        finally:
            producer.close()
        assert staying.wait(30) == 0
        wait_until(lambda: hub.channels() == [], 30)


def refused(code: int, message: str, *words: str) -> None:
    shown = labhub("register", *words)
    assert (shown.returncode, shown.stdout) == (code, ""), shown.stderr
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert "Traceback" not in shown.stderr


def test_what_cannot_be_registered(broker) -> None:
    refused(3, "there is no segment 'x' in", "x", "--schema", FIELDS)
    refused(1, "cannot name", "../x", "--schema", FIELDS)
    producer = undeclared(16)
    try:
        refused(1, "16 bytes in the segment, 8 in the schema", "x", "--schema", "f8")
        refused(1, "with --align it would fit", "x", "--schema", FIELDS)
        refused(1, "neither a numpy dtype nor", "x", "--schema", "nonsense")
    finally:
        producer.close()
    with open_producer("x", POINT):
        refused(1, "declares another schema itself", "x", "--schema", "('u4', (3,))")
        with connect() as hub:
            assert hub.channels() == []


def test_a_dead_producer_is_not_registered(broker) -> None:
    def work(report) -> None:
        producer = undeclared(12)
        report(producer.head)
        while True:
            producer.write(bytes(12), -1, -1)

    child = Child(work)
    child.receive()
    child.kill()
    refused(1, f"process {child.pid}, is dead; start it again", "x", "--schema", FIELDS)
    assert _native.unlink_dead(segment_directory(), "x")


def test_no_broker_is_3() -> None:
    producer = undeclared(12)
    try:
        refused(3, "no broker named 'default' is running", "x", "--schema", FIELDS)
    finally:
        producer.close()
