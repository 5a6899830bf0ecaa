from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from labhub import _native, diagnose
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.doctor import examine, repair
from labhub.hub import connect, named_broker
from labhub.schema import Schema
from tests.doctor.conftest import PRODUCER, kill, trouble, troubles

# As a creator of a segment does: under a temporary name, and locked.
CREATOR = """
    import fcntl, os, time
    from labhub import liveness
    from labhub.datablock.location import segment_directory
    path = os.path.join(segment_directory(), ".pump.1.2.tmp")
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, liveness._flock(fcntl.F_WRLCK))
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def directory() -> Path:
    path = Path(segment_directory())
    path.mkdir(mode=0o700)
    return path


def test_nothing_is_wrong_with_nothing(private_dirs):
    assert troubles() == []
    assert [str(p.relative_to(private_dirs)) for p in sorted(private_dirs.rglob("*"))] == [
        "config",
        "data",
        "run",
        "shm",
    ]


def test_the_segment_of_a_killed_producer_is_removed_and_its_readers_are_told(producer):
    with open_reader() as reader:
        kill(producer)
        found = trouble()
        assert (found.check, found.severity, found.fix) == ("segments", "problem", "labhub doctor --fix")
        assert f"process {producer.pid}, is dead" in found.what
        assert os.path.exists(found.subject)  # looking changes nothing
        (repaired,) = repair([found])
        assert (repaired.outcome, repaired.unsolved) == ("removed", False)
        assert not os.path.exists(found.subject)
        assert troubles() == []
        assert reader.ended


def test_a_live_one_is_never_touched(producer):
    assert troubles() == []
    repair(examine())
    assert diagnose("pump").alive


def test_a_takeover_between_look_and_repair_wins(producer):
    kill(producer)
    found = trouble()
    with open_producer("pump", Schema.infer(dtype="f8"), directory=segment_directory(), capacity=8) as successor:
        assert successor.epoch == 2
        (repaired,) = repair([found])
        assert (repaired.outcome, repaired.unsolved) == ("kept", True)
        successor.write(2.0)
        assert diagnose("pump").head == 2
        assert troubles() == []


def test_another_incarnation_between_look_and_repair_is_kept(producer, elsewhere):
    kill(producer)
    found = trouble()
    assert _native.unlink_dead(segment_directory(), "pump")
    kill(elsewhere(PRODUCER))
    assert repair([found])[0].outcome == "kept"
    assert repair([trouble()])[0].outcome == "removed"


def test_what_a_broker_knows_is_left_to_it(elsewhere, wait_until):
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        process = elsewhere("""
            import time, labhub
            producer = labhub.connect().producer("pump", dtype="f8")
            print("ready", flush=True)
            time.sleep(600)
        """)
        kill(process)
        found = trouble()
        assert (found.severity, found.remedy) == ("note", None)
        assert "removes channel 'pump'" in found.what
        wait_until(lambda: not os.path.exists(found.subject), 30)
        assert troubles() == []


def test_the_beginning_of_a_segment_is_removed_once_its_maker_is_dead(directory, elsewhere):
    process = elsewhere(CREATOR)
    (temporary,) = directory.iterdir()
    assert troubles() == []
    kill(process)
    found = trouble()
    assert (found.check, found.severity, found.subject) == ("temporaries", "problem", str(temporary))
    other = os.open(temporary, os.O_RDWR)
    os.close(other)  # an open and a close elsewhere change nothing
    assert repair([found])[0].outcome == "removed"
    assert list(directory.iterdir()) == []
    assert repair([found])[0].outcome == "kept"


def test_a_beginning_that_is_locked_again_is_kept(directory, elsewhere):
    kill(elsewhere(CREATOR))
    found = trouble()
    (temporary,) = directory.iterdir()
    temporary.unlink()
    process = elsewhere(CREATOR)
    assert repair([found])[0].outcome == "kept"
    assert temporary.exists()
    kill(process)
    temporary.unlink()


def test_foreign_things_are_named_and_never_touched(directory):
    (directory / "chart.png~").write_text("x")
    (directory / "chart.png~").chmod(0o600)
    (directory / "junk").write_bytes(b"x" * 20_000)
    (directory / "junk").chmod(0o600)
    (directory / "short").write_bytes(b"x")
    (directory / "short").chmod(0o600)
    (directory / "folder").mkdir()
    (directory / "link").symlink_to("junk")
    (directory.parent / "README").write_text("x")
    found = {Path(f.subject).name: f for f in repair(troubles())}
    assert {name: f.severity for name, f in found.items()} == {
        "README": "note", "chart.png~": "note", "junk": "problem", "short": "problem", "folder": "problem",
        "link": "problem",
    }  # fmt: skip
    assert "no channel can have this name" in found["junk"].what
    assert all(f.outcome == "" for f in found.values())
    left = sorted(p.name for p in directory.iterdir())
    assert left == ["chart.png~", "folder", "junk", "link", "short"]
    for path in directory.iterdir():
        path.rmdir() if path.name == "folder" else path.unlink()
    (directory.parent / "README").unlink()


def test_a_segment_of_another_layout_version(producer):
    path = Path(diagnose("pump").path)
    kill(producer)
    whole = path.read_bytes()
    for at in range(64):  # wherever the version is, it is the one field that is refused by that name
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        found = trouble()
        if "layout version" in found.what:
            break
    else:
        pytest.fail("no byte of the first line is the layout version")
    assert (found.severity, found.remedy, found.fix) == ("problem", None, f"rm {path}")
    path.unlink()


def test_a_segment_open_to_others_is_made_private_by_the_fix(producer):
    path = Path(diagnose("pump").path)
    path.chmod(0o644)
    found = trouble()
    assert found.fix == f"chmod 600 {path}"
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []


def test_a_stalled_producer_is_a_note(elsewhere, wait_until):
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub:
            process = elsewhere("""
                import time, labhub
                producer = labhub.connect().producer("pump", dtype="f8")
                print("ready", flush=True)
                time.sleep(600)
            """)
            os.kill(process.pid, 19)
            wait_until(lambda: hub.find("pump").liveness == "stalled", 30)
            found = trouble()
            assert (found.check, found.severity, found.subject) == ("channels", "note", "pump")
            assert found.fix == f"kill -CONT {process.pid}"
            os.kill(process.pid, 18)
            process.terminate()
            process.wait(60)
            wait_until(lambda: not os.path.exists(os.path.join(segment_directory(), "pump")), 30)


def open_reader():
    from labhub.datablock.consumer import open_consumer

    return open_consumer("pump", directory=segment_directory())


def test_many_looks_and_repairs_never_hurt_a_producer_that_comes_and_goes(producer):
    """A race on purpose: a doctor that repairs all the time, and producers that take over from each other."""
    kill(producer)
    deadline = time.monotonic() + 3
    written = 0
    while time.monotonic() < deadline:
        found = troubles()
        with open_producer("pump", Schema.infer(dtype="f8"), directory=segment_directory(), capacity=8) as successor:
            assert all(finding.outcome != "removed" for finding in repair(found))
            successor.write(1.0)
            written += 1
            assert diagnose("pump").alive
    assert written > 1
