from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from labhub import runtime
from labhub.doctor import examine, repair
from labhub.hub import named_broker, start_broker, stop_broker
from labhub.runtime import ConnectionFile
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, data_directory, load_key
from labhub.transport.keys import enroll
from tests.doctor.conftest import trouble, troubles

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def broker():
    running = start_broker(endpoint=ANY_PORT)
    yield running
    if running.alive:
        os.kill(running.pid, signal.SIGCONT)
        os.kill(running.pid, signal.SIGKILL)
    for path in Path(os.environ["LABHUB_RUNTIME_DIR"]).iterdir():
        path.unlink()


def kill(broker: ConnectionFile, wait_until) -> None:
    os.kill(broker.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(broker.pid))  # with its last thread, which may still hold the lock


def changed(broker: ConnectionFile, **facts: object) -> None:
    path = runtime.path_of(broker.name)
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_a_broker_that_is_well(broker):
    assert troubles() == []
    assert [f.what for f in examine() if f.check == "brokers"] == ["1"]


def test_what_a_killed_broker_leaves_is_removed_and_it_can_start_again(broker, wait_until, private_dirs):
    kill(broker, wait_until)
    before = sorted((private_dirs / "run").iterdir())
    assert [p.name for p in before] == ["broker-default.json", "broker-default.lock"]
    found = trouble()
    assert (found.check, found.severity, found.fix) == ("connection files", "problem", "labhub doctor --fix")
    assert f"process {broker.pid}, is dead" in found.what
    assert sorted((private_dirs / "run").iterdir()) == before  # looking changes nothing
    assert repair([found])[0].outcome == "removed"
    assert list((private_dirs / "run").iterdir()) == []
    start_broker(endpoint=ANY_PORT)
    assert troubles() == []
    stop_broker()


def test_a_broker_that_starts_between_look_and_repair_is_kept(broker, wait_until):
    kill(broker, wait_until)
    found = trouble()
    start_broker(endpoint=ANY_PORT)
    assert repair([found])[0].outcome == "kept"
    assert troubles() == []
    stop_broker()


@pytest.mark.parametrize("text", ["", "{", "[]", "\N{SNOWMAN}"])
def test_garbage_for_a_connection_file(private_dirs, text):
    path = private_dirs / "run" / "broker-lab.json"
    path.write_text(text)
    found = trouble()
    assert (found.severity, found.what) == ("problem", "not a connection file")
    assert repair([found])[0].outcome == "removed"
    assert not path.exists()


def test_half_a_connection_file_and_a_lock_alone(private_dirs):
    half = private_dirs / "run" / ".broker-lab.json.1"
    half.touch(0o600)
    lock = private_dirs / "run" / "broker-lab.lock"
    lock.touch(0o600)
    found = troubles()
    assert sorted(f.subject for f in found) == [str(half), str(lock)]
    with runtime.claimed("lab"):
        assert troubles() == []  # somebody is starting a broker
        assert [f.outcome for f in repair(found)] == ["kept", "kept"]
    half.touch(0o600)
    assert {f.outcome for f in repair(troubles())} == {"removed"}
    assert list((private_dirs / "run").iterdir()) == []


def test_a_connection_file_that_is_a_link_is_left_alone(private_dirs):
    path = private_dirs / "run" / "broker-lab.json"
    path.symlink_to("/etc/hostname")
    found = trouble()
    assert (found.severity, found.remedy, found.fix) == ("problem", None, f"rm {path}")
    path.unlink()


def test_a_stopped_broker(broker):
    os.kill(broker.pid, signal.SIGSTOP)
    found = trouble()
    assert (found.check, found.severity, found.subject) == ("brokers", "problem", "default")
    assert found.what == f"does not answer: its process {broker.pid} is stopped"
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []


def test_a_broker_of_another_version(broker):
    changed(broker, version="0.0.1")
    found = trouble()
    assert found.what.startswith("runs labhub 0.0.1, this is ")
    assert found.fix == "labhub broker stop --name default; labhub broker start --name default"


def test_a_broker_with_another_key_than_it_says(broker):
    changed(broker, public_key=load_key(CLIENT_KEY).public)
    found = {f.severity: f for f in troubles()}
    assert "keys do not match" in found["problem"].what
    assert "another key than the server key" in found["note"].what


def test_a_server_key_that_was_replaced_under_a_broker(broker):
    (data_directory() / SERVER_KEY).unlink()
    load_key(SERVER_KEY)
    assert "another key than the server key" in trouble().what


def test_a_client_key_that_was_replaced_or_lost_under_a_broker(broker):
    (data_directory() / CLIENT_KEY).unlink()
    found = trouble()
    assert "client key is gone" in found.what
    assert not (data_directory() / CLIENT_KEY).exists()  # looking makes none
    load_key(CLIENT_KEY)
    assert "refused this client's key" in trouble().what


def test_nobody_listens_where_a_live_process_says(broker):
    changed(broker, endpoint="tcp://127.0.0.1:1")
    assert "nobody listens at tcp://127.0.0.1:1" in trouble().what


def test_a_connection_file_open_to_others(broker):
    runtime.path_of("default").chmod(0o644)
    found = trouble()
    subprocess.run(found.fix, shell=True, check=True, timeout=60)
    assert troubles() == []


def test_settings_that_are_broken_or_rule_keys_that_nobody_enrolled(broker, private_dirs):
    path = private_dirs / "config" / "broker-default.toml"
    path.write_text('[access."*"]\n[access.ann]\n[access.bob]\n')
    enroll(KeyPair.random().public, name="bob")
    (found,) = [f for f in examine() if f.check == "brokers" and f.severity == "note"]
    assert "the key 'ann'" in found.what
    path.write_text("[access.ann]\nconsum = 1\n")
    found = trouble()
    assert (found.check, found.severity, found.subject) == ("brokers", "problem", "default")
    assert "line 2: access.ann.consum" in found.what


def test_settings_that_are_gone_and_still_hold(private_dirs, wait_until):
    path = private_dirs / "config" / "broker-default.toml"
    right = f'[broker]\nlisten = "{ANY_PORT}"\n'
    path.write_text(right)
    with named_broker() as service, service:
        assert troubles() == []
        path.unlink()
        wait_until(lambda: service.look().numbers["settings_refused"])
        found = trouble()
        assert (found.check, found.severity, found.subject) == ("brokers", "problem", "default")
        assert f"{path}, its settings, is gone" in found.what
        path.write_text(right)
        wait_until(lambda: not service.look().numbers["settings_refused"])
        assert troubles() == []
