"""Settings files and a connection file of 0323d94 mean what they meant."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from labhub import Messenger, doctor, liveness, runtime
from labhub.errors import AccessDenied, BrokerUnreachable
from labhub.hub import named_broker, running_broker
from labhub.settings import Settings, SettingsFile, read_settings, settings_path
from labhub.transport.curve import KeyPair
from labhub.transport.keys import enroll

MADE = Path(__file__).parent / "broker_0323d94"
READ = json.loads((MADE / "read.json").read_text())


def put(name: str, target: Path) -> Path:
    """Copy a file to where labhub looks for it."""
    shutil.copyfile(MADE / name, target)
    target.chmod(0o600)
    return target


@pytest.mark.parametrize("name", READ)
def test_a_settings_file_says_what_it_said(private_dirs: Path, name: str) -> None:
    settings = read_settings(put(name, settings_path()))
    assert isinstance(settings, Settings)
    said = msgspec.to_builtins(settings)
    for table in ("broker", "metrics", "access"):
        assert READ[name][table].items() <= said[table].items()
    assert said["access"] == READ[name]["access"]
    assert not settings.says_open


@pytest.fixture
def guest(private_dirs: Path) -> Iterator[Messenger]:
    key = KeyPair.random()
    enroll(key.public, name="ann")
    with Messenger(key) as messenger:
        yield messenger


@pytest.mark.parametrize("name", READ)
def test_a_broker_that_starts_with_it_lets_guests_do_what_they_could(guest: Messenger, name: str) -> None:
    put(name, settings_path())
    with named_broker(endpoint="tcp://127.0.0.1:0", metrics_port=None) as service, service:
        assert guest.connect(service.endpoint, service.public_key)
        assert guest.list_channels("pump.a") == []
        if READ[name]["access"]:
            with pytest.raises(AccessDenied):
                guest.list_channels("secret.a")
        else:  # no rules at the start: open, as ever
            assert guest.list_channels("secret.a") == []


def test_a_file_without_rules_is_no_way_out_of_rules_while_a_broker_runs(private_dirs: Path) -> None:
    path = put("whole.toml", settings_path())
    file = SettingsFile(path)
    put("without_rules.toml", path)
    assert file.refresh(0.0)
    assert sorted(file.current.access) == ["*", "ann"]
    assert 'write this line into it: access = "open"' in file.error


def test_the_connection_file_of_a_dead_broker_is_read_and_known_to_be_stale(private_dirs: Path) -> None:
    put("broker-default.json", runtime.path_of("default"))
    found = runtime.find("default")
    assert found is not None
    assert (found.version, found.settings_error) == ("0.1.0", "")
    assert found.settings.endswith("broker-default.toml")
    assert not found.alive
    with pytest.raises(BrokerUnreachable, match="no broker named 'default' is running"):
        running_broker()
    stale = [f for f in doctor.examine() if f.check == "connection files"]
    assert len(stale) == 1
    assert "is dead" in stale[0].what
    with named_broker(endpoint="tcp://127.0.0.1:0") as service, service:  # it is no obstacle
        assert runtime.find_live("default").pid == os.getpid()  # type: ignore[union-attr]


def test_the_connection_file_of_a_living_broker_leads_to_it(private_dirs: Path) -> None:
    """As if a broker of that version ran on in another process: its fields, with what is true of this process."""
    with named_broker("now", endpoint="tcp://127.0.0.1:0") as service, service, Messenger() as messenger:
        made = json.loads((MADE / "broker-default.json").read_text())
        made |= {
            "endpoint": service.endpoint,
            "public_key": service.public_key,
            "pid": os.getpid(),
            "start_time": liveness.start_time_of(os.getpid()),
            "boot_id": liveness.boot_id(),
        }
        path = runtime.path_of("default")
        path.write_text(json.dumps(made))
        path.chmod(0o600)
        found = running_broker()
        assert messenger.connect(found.endpoint, found.public_key)
        path.unlink()
