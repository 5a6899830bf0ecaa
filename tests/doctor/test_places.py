from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from labhub import words
from labhub.datablock import location
from labhub.doctor import examine, repair
from labhub.doctor.places import examine_space
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, data_directory, load_key, write_private
from labhub.transport.enrolled import ENROLLED
from tests.doctor.conftest import trouble, troubles

DOCTOR = [sys.executable, "-m", "labhub.cli", "doctor", "--json"]


def doctor(prefix: str) -> list[dict[str, object]]:
    """Findings of a process that a shell line prepares."""
    script = f'{prefix} exec "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", *DOCTOR], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return [finding for finding in json.loads(done.stdout) if finding["severity"] != "ok"]


@pytest.mark.parametrize("name", ["shm", "run", "data"])
def test_a_directory_open_to_others_is_made_private_by_the_fix(private_dirs, name):
    (private_dirs / name).chmod(0o755)
    found = trouble()
    assert (found.severity, found.fix) == ("problem", f"chmod 700 {private_dirs / name}")
    assert "0755" in found.what
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []


@pytest.mark.parametrize("name", ["shm", "run", "data"])
def test_a_directory_that_is_a_link(private_dirs, name):
    (private_dirs / name).rename(private_dirs / "real")
    (private_dirs / name).symlink_to("real")
    found = trouble()
    assert found.severity == "problem"
    assert "symbolic link to real" in found.what
    (private_dirs / name).unlink()
    (private_dirs / "real").rename(private_dirs / name)


def test_a_link_for_the_segments_of_one_broker_is_not_followed(private_dirs):
    (private_dirs / "elsewhere").mkdir(mode=0o700)
    (private_dirs / "elsewhere" / "junk").touch(0o600)
    link = private_dirs / "shm" / "default"
    link.symlink_to(private_dirs / "elsewhere")
    assert trouble().subject == str(link)
    link.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else(private_dirs):
    os.chown(private_dirs / "run", 65534, -1)
    found = trouble()
    assert (found.check, found.severity) == ("runtime directory", "problem")
    assert "belongs to uid 65534" in found.what
    os.chown(private_dirs / "run", 0, -1)


def test_few_open_files():
    (found,) = doctor("ulimit -n 256;")
    assert (found["check"], found["severity"]) == ("limits", "note")
    assert "up to 256" in found["what"]
    (found,) = doctor("ulimit -Sn 60;")
    assert found["severity"] == "problem"
    assert str(found["fix"]).startswith("ulimit -n ")


@pytest.mark.parametrize(("size", "severity"), [("64m", "note"), ("8m", "problem")])
def test_little_shared_memory(private_dirs, size, severity):
    mount = f'mount -t tmpfs -o size={size},mode=700 tmpfs "{private_dirs / "shm"}"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("no private mount namespace here")
    script = f'{mount} && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", *DOCTOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (found,) = [f for f in json.loads(done.stdout) if f["severity"] != "ok"]
    assert (found["check"], found["severity"]) == ("shared memory", severity)
    assert f"of {words.size(int(size[:-1]) * 2**20)} are free" in found["what"]
    assert "--shm-size" in found["fix"]
    assert done.returncode == (severity == "problem")


def test_the_fallback_where_shm_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.delenv("LABHUB_SHM_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    location._default_base.cache_clear()
    try:
        found = [f for f in examine_space() if f.severity == "problem"]
    finally:
        location._default_base.cache_clear()
    assert "used because /dev/shm cannot be written" in found[0].what
    assert str(tmp_path) in found[0].subject


@pytest.mark.parametrize("name", [CLIENT_KEY, SERVER_KEY])
def test_key_files_that_are_not_to_be_trusted(name, private_dirs):
    pair, path = load_key(name), data_directory() / name
    path.chmod(0o640)
    found = trouble()
    assert found.fix == f"chmod 600 {path}"
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []
    other = load_key(SERVER_KEY if name == CLIENT_KEY else CLIENT_KEY)
    for garbage in ("", "nonsense", f"{pair.public}\n{other.secret}\n", f"{'#' * 40}\n{'#' * 40}\n"):
        path.write_text(garbage)
        found = trouble()
        assert (found.check, found.severity, found.remedy) == ("keys", "problem", None)
        assert "holds no key pair" in found.what
    path.unlink()
    path.symlink_to("elsewhere")
    subprocess.run(trouble().fix, shell=True, check=True, timeout=60)
    assert troubles() == []
    assert not any(secret in repr(examine()) for secret in (pair.secret, other.secret))


def test_the_enrolled_keys():
    path = data_directory() / ENROLLED
    path.write_text(f"# notes\n\n{load_key(CLIENT_KEY).public} me\ntypo\n")
    found = trouble()
    assert (found.severity, found.what) == ("note", "line 4 begins with no key, so it lets nobody in")
    path.write_text("# notes\n")
    path.chmod(0o666)
    found = trouble()
    assert found.severity == "problem"
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []


def test_half_a_key_file_whose_maker_was_killed():
    path = data_directory() / CLIENT_KEY
    living = write_private(path, "half")
    assert troubles() == []
    pid = os.fork()
    if pid == 0:
        write_private(path, "half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    found = trouble()
    assert (found.check, found.severity) == ("temporaries", "problem")
    assert Path(found.subject) != living.path
    assert repair([found])[0].outcome == "removed"
    assert list(data_directory().iterdir()) == [living.path]
    living.discard()


def test_a_directory_in_the_place_of_a_key_does_not_end_the_examination():
    (data_directory() / CLIENT_KEY).mkdir()
    found = trouble()
    assert (found.check, found.severity, found.subject) == ("keys", "problem", str(data_directory() / CLIENT_KEY))
    assert found.what.startswith("cannot be examined: Is a directory")
    assert {"keys", "brokers", "segments", "leftovers"} <= {finding.check for finding in examine()}


def test_a_file_in_the_place_of_the_data_directory_does_not_end_the_examination(private_dirs):
    (private_dirs / "data").rmdir()
    (private_dirs / "data").write_text("not a directory")
    found = troubles()
    assert {finding.check for finding in found} == {"data directory", "keys"}
    assert {"brokers", "segments", "leftovers"} <= {finding.check for finding in examine()}


def test_a_pipe_in_the_place_of_a_connection_file_is_not_waited_for(private_dirs):
    os.mkfifo(private_dirs / "run" / "broker-x.json", 0o600)
    assert trouble().what == "not a file of yours"
    (private_dirs / "run" / "broker-x.json").unlink()


def test_what_cannot_be_removed_does_not_end_the_repair(private_dirs):
    path = private_dirs / "run" / "broker-x.json"
    path.write_text("no connection file")
    (stale,) = troubles()

    def fails() -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    first, second = repair([replace(stale, remedy=fails), stale])
    assert (first.outcome, second.outcome) == ("kept", "removed")
    assert first.what.endswith(f"it cannot be removed: Permission denied: {path}")
