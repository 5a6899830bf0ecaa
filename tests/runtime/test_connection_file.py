from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labhub import liveness, runtime
from labhub.errors import InvalidName, LabHubError, SegmentAccessError
from labhub.runtime import ConnectionFile


def test_it_is_private_whole_and_found_again(private_dirs: Path) -> None:
    mine = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key")
    path = mine.write()
    assert path == private_dirs / "run" / "broker-lab.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert runtime.find_live("lab") == mine
    mine.remove()
    mine.remove()
    assert runtime.find("lab") is None


def test_a_stale_one_is_not_believed(private_dirs: Path) -> None:
    path = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key").write()
    document = json.loads(path.read_text())
    for change in ({"start_time": 1.0}, {"boot_id": "another"}, {"pid": 2**22 + 1}):
        path.write_text(json.dumps(document | change))
        assert runtime.find("lab") is not None
        assert runtime.find_live("lab") is None
    for garbage in ("", "{}", "\xff", "[]"):
        path.write_text(garbage, encoding="latin-1")
        assert runtime.find("lab") is None
    path.unlink()


def test_another_brokers_file_is_left_alone() -> None:
    mine = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key")
    other = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:2", "key")
    other.write()
    mine.remove()
    assert runtime.find("lab") == other
    other.remove()


def test_the_directory_must_be_private(private_dirs: Path) -> None:
    (private_dirs / "run").chmod(0o755)
    with pytest.raises(SegmentAccessError, match="chmod 700"):
        runtime.find("lab")


def test_the_directory_follows_the_environment(
    private_dirs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert runtime.runtime_directory() == private_dirs / "run"
    monkeypatch.delenv("LABHUB_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime.runtime_directory() == tmp_path / "labhub"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    assert runtime.runtime_directory() == tmp_path / "jupyter" / "labhub"


@pytest.mark.parametrize("name", ["../x", "", "a/b"])
def test_hostile_names(name: str) -> None:
    with pytest.raises(InvalidName):
        runtime.find(name)


def test_the_start_of_a_process_does_not_hang_on_the_wall_clock() -> None:
    """Seconds since boot: what is counted from the epoch moves when somebody sets the clock."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ours, theirs = liveness.start_time_of(os.getpid()), liveness.start_time_of(child.pid)
        assert ours is not None
        assert theirs is not None
        assert 0 <= ours <= theirs <= time.clock_gettime(time.CLOCK_BOOTTIME)
    finally:
        child.communicate(b"\n")
    assert liveness.start_time_of(child.pid) is None
    uptime = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key").uptime
    assert 0 <= uptime <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_open_files_nobody_is_dead() -> None:
    """What cannot be read now is an error, not an answer, and can be read again later."""
    mine = ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key")
    mine.write()
    code = """
import os, resource
from labhub import liveness, runtime
from labhub.errors import SegmentSpaceError
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 4096))
for look in (lambda: runtime.find_live("lab"), lambda: liveness.start_time_of(os.getpid()), liveness.boot_id):
    try:
        look()
    except SegmentSpaceError as error:
        assert "ulimit -n" in str(error)
    else:
        raise AssertionError("it could be read")
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
assert liveness.boot_id()
assert runtime.find_live("lab").alive
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    mine.remove()


def test_a_lock_whose_holder_cannot_be_found_is_waited_for(private_dirs: Path) -> None:
    """It is a broker that was killed a moment ago, or one that has not written its connection file yet."""
    with (private_dirs / "run" / "broker-lab.lock").open("w") as dying:
        fcntl.flock(dying, fcntl.LOCK_EX)
        end = threading.Timer(0.1, lambda: fcntl.flock(dying, fcntl.LOCK_UN))
        end.start()
        with runtime.claimed("lab"):
            end.join(60)
            announce = threading.Timer(0.1, ConnectionFile.of_this_process("lab", "tcp://127.0.0.1:1", "key").write)
            announce.start()
            with pytest.raises(LabHubError, match=rf"runs already: pid {os.getpid()} at tcp://127.0.0.1:1"):
                with runtime.claimed("lab"):
                    pass
        announce.join(60)
    runtime.path_of("lab").unlink()
