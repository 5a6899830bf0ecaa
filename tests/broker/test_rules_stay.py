"""A settings file that loses its access rules: the broker goes on with those before, and says so everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub import Messenger, doctor, runtime
from labhub.errors import AccessDenied
from labhub.hub import connect, named_broker
from labhub.transport.curve import KeyPair
from labhub.transport.keys import enroll
from tests.metrics.conftest import free_port, text

Wait = Callable[..., None]
RULES = '[access.ann]\nconsume = ["ann.*"]\n'


@pytest.fixture
def settings(private_dirs: Path) -> Path:
    path = private_dirs / "config" / "broker-default.toml"
    path.write_text(RULES)
    return path


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def ann(settings: Path, port: int) -> Iterator[Messenger]:
    """A guest of a broker with rules."""
    key = KeyPair.random()
    enroll(key.public, name="ann")
    with (
        named_broker(endpoint="tcp://127.0.0.1:0", metrics_port=port) as service,
        service,
        Messenger(key) as guest,
    ):
        assert guest.connect(service.endpoint, service.public_key)
        yield guest


def refused(guest: Messenger) -> bool:
    try:
        guest.list_channels("pump.a")
    except AccessDenied:
        return True
    return False


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text(""), "no access rules any more"),
        (lambda path: path.write_text("[broker]\n"), "no access rules any more"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
    ],
    ids=["empty", "cut", "gone", "directory"],
)
def test_what_is_not_believed_shows_everywhere(
    ann: Messenger,
    settings: Path,
    port: int,
    spoil: Callable[[Path], object],
    why: str,
    wait_until: Wait,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert refused(ann)
    with connect() as hub:
        assert hub.status.settings_error == ""
        spoil(settings)
        wait_until(lambda: runtime.find().settings_error)
        assert refused(ann)
        assert any(getattr(r, "event", "") == "settings_refused" for r in caplog.records)
        assert why in caplog.text
        assert why in hub.status.settings_error
        assert why in hub.status.explain()
        wait_until(lambda: "labhub_settings_refused 1.0" in text(port))
        found = [f.what for f in doctor.examine() if f.severity == "problem"]
        assert any("older ones hold" in what or "is gone" in what for what in found), found
        if settings.is_dir():
            settings.rmdir()
        settings.write_text(RULES)
        wait_until(lambda: hub.status.settings_error == "")
        assert refused(ann)


def test_a_file_that_says_open_is_believed_once_it_is_still(
    ann: Messenger, settings: Path, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labhub.settings.STILL", 0.1)
    settings.write_text('access = "open"\n')
    wait_until(lambda: not refused(ann))
    wait_until(lambda: runtime.find().settings_error == "")


def test_a_broker_that_starts_without_rules_is_open_as_ever(settings: Path) -> None:
    settings.write_text("[broker]\n")
    key = KeyPair.random()
    enroll(key.public, name="ann")
    with named_broker(endpoint="tcp://127.0.0.1:0") as service, service, Messenger(key) as guest:
        assert guest.connect(service.endpoint, service.public_key)
        assert not refused(guest)
