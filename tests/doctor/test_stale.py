"""Each stale state that a fault can leave behind is made for real, named, and what is said to help does help."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from labhub import diagnose, runtime
from labhub.datablock.location import segment_directory
from labhub.doctor import Finding, examine, repair
from labhub.hub import connect, named_broker
from tests.doctor.conftest import PRODUCER, kill, trouble, troubles
from tests.faults.stepped import stepped_environment

READER = """
    import time
    from labhub.datablock.consumer import open_consumer
    from labhub.schema import Schema
    reader = open_consumer("pump", Schema.infer(dtype="f8"), mode="lossless")
    print("ready", flush=True)
    time.sleep(600)
"""
# Killed inside a slot that it has claimed: its seq is odd.
WRITER = """
    import os, signal
    from labhub.datablock.producer import open_producer
    from labhub.schema import Schema
    producer = open_producer("pump", Schema.infer(dtype="f8"), capacity=8)
    with producer.slot():
        print("ready", flush=True)
        signal.pause()
"""
NOTEBOOK = """
    import os, signal, socket
    from labhub import runtime
    directory = runtime.kernel_directory()
    directory.mkdir(mode=0o700)
    (directory / "k1.json").write_text("{}")
    for place in (directory, runtime.socket_directory()):
        socket.socket(socket.AF_UNIX).bind(str(place / "k1-1"))
    print("ready", flush=True)
    signal.pause()
"""
REGISTERED = """
    import signal, labhub
    producer = labhub.connect().producer("pump", dtype="f8", capacity=8)
    print("ready", flush=True)
    signal.pause()
"""


@contextmanager
def pump(**options: object):
    """A producer in this process, with room for eight slots."""
    from labhub.datablock.producer import open_producer
    from labhub.schema import Schema

    with open_producer("pump", Schema.infer(dtype="f8"), capacity=8, **options) as producer:
        yield producer


def put_right(found: Finding) -> None:
    subprocess.run(found.fix, shell=True, check=True, timeout=60)


def test_a_producer_that_died_in_mid_write(elsewhere):
    process = elsewhere(WRITER)
    kill(process)
    assert diagnose("pump").slots["writing"] == 1
    found = trouble()
    assert "is dead in the middle of a write (nobody can read that slot)" in found.what
    assert repair([found])[0].outcome == "removed"
    assert troubles() == []


def test_a_lossless_reader_that_died_holding_its_place(elsewhere):
    with pump(timeout=10) as producer:
        process = elsewhere(READER)
        producer.write_many(np.zeros(3))
        kill(process)
        found = trouble()
        assert (found.check, found.severity) == ("channels", "note")
        assert f"process {process.pid}, died 3 slots behind; the producer evicts it" in found.what
        producer.write_many(np.zeros(8))  # what it says comes true
        assert producer.stats()["evictions"] == 1
        assert troubles() == []


def test_a_lossless_reader_that_is_stopped_and_then_evicted(elsewhere, wait_until):
    with pump(timeout=10, evict_after=0.05) as producer:
        process = elsewhere(READER)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: len(troubles()) == 1)
        found = trouble()
        assert f"process {process.pid}, is stopped, 0 of 8 slots behind" in found.what
        assert found.fix == f"kill -CONT {process.pid}"
        producer.write_many(np.zeros(9))
        found = trouble()
        assert f"process {process.pid}, held the producer up and was evicted" in found.what
        put_right(found)
        wait_until(lambda: trouble().fix == "")  # it runs again, and has not read on yet
        kill(process)
        assert troubles() == []  # its line is free for the next reader


def test_a_stopped_producer_that_no_broker_knows(producer, wait_until):
    producer.send_signal(signal.SIGSTOP)
    wait_until(lambda: len(troubles()) == 1)
    found = trouble()
    assert (found.severity, f"process {producer.pid}, is stopped" in found.what) == ("note", True)
    put_right(found)
    wait_until(lambda: troubles() == [])


def test_a_segment_that_was_removed_under_its_producer(producer):
    Path(diagnose("pump").path).unlink()
    found = trouble()
    assert (found.check, found.severity) == ("leftovers", "problem")
    assert f"while its producer is at work (process {producer.pid})" in found.what
    assert "close that producer and open it again" in found.what
    assert found.remedy is None
    kill(producer)
    assert troubles() == []


def test_a_segment_that_has_ended_and_is_read_still(elsewhere):
    with pump() as producer:
        process = elsewhere(READER)
        producer.write(1.0)
    (found,) = [f for f in examine() if f.check == "leftovers"]
    assert (found.severity, found.subject) == ("ok", str(Path(segment_directory()) / "pump"))
    assert f"process {process.pid} can still read it" in found.what
    kill(process)
    assert "none" in [f.what for f in examine() if f.check == "leftovers"]


def test_a_registration_whose_segment_is_gone(elsewhere, wait_until):
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        process = elsewhere(REGISTERED)
        with connect() as hub:
            Path(diagnose("pump").path).unlink()
            found = {f.check: f for f in troubles()}
            assert found["channels"].subject == "pump"
            assert f"registered by process {process.pid}, but its segment is gone" in found["channels"].what
            assert found["leftovers"].severity == "problem"
            kill(process)
            wait_until(lambda: hub.channels() == [], 30)  # the broker forgets it, as was said
        assert troubles() == []


def test_files_and_sockets_of_a_dead_notebooks_kernels(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    process = elsewhere(NOTEBOOK)
    assert troubles() == []
    kill(process)
    found = troubles()
    assert [Path(f.subject).parent for f in found] == sorted([runtime.runtime_directory(), tmp_path])
    assert all((f.check, f.severity, f.fix) == ("leftovers", "problem", "labhub doctor --fix") for f in found)
    for place in found:
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(Path(place.subject) / "k1-1"))
    assert [f.outcome for f in repair(found)] == ["removed", "removed"]
    assert troubles() == []


def test_timestamps_ahead_of_the_clock(tmp_path):
    """The producer began an hour ahead; then somebody put the clock right."""
    command = [sys.executable, "-c", textwrap.dedent(PRODUCER)]
    environment = stepped_environment(tmp_path, 3600)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            found = trouble()
        finally:
            kill(process)
    assert (found.check, found.severity) == ("channels", "note")
    ahead = int(found.what.removeprefix("its timestamps are ").partition(" s ahead of the clock")[0])
    assert 3500 < ahead <= 3600
    assert repair([trouble()])[0].outcome == "removed"


def test_a_socket_in_the_segment_directory_is_foreign():
    directory = Path(segment_directory())
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "pump"))
        assert trouble().what.startswith("not a file of yours; no channel can have this name")
    os.unlink(directory / "pump")
