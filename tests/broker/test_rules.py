"""Access rules in a broker that runs: what guests may do, and that a change of the file is followed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub import Messenger, ProducerInfo, runtime
from labhub.broker import BrokerService
from labhub.errors import AccessDenied, InvalidSettings
from labhub.hub import connect, named_broker, start_broker, stop_broker
from labhub.protocol.client_state import Gap
from labhub.protocol.messages import Event
from labhub.transport.curve import KeyPair
from labhub.transport.keys import enroll

ANY_PORT = "tcp://127.0.0.1:0"
INFO = ProducerInfo("c", os.getpid(), bytes(32), 1)
Wait = Callable[..., None]


@pytest.fixture
def settings(private_dirs: Path) -> Path:
    path = private_dirs / "config" / "broker-default.toml"
    path.write_text('[access.ann]\nproduce = ["ann.*"]\nconsume = ["pump.*", "ann.*"]\n')
    return path


@pytest.fixture
def broker(settings: Path) -> Iterator[BrokerService]:
    with named_broker(endpoint=ANY_PORT) as service:
        yield service.start()


@pytest.fixture
def owner(broker: BrokerService) -> Iterator[Messenger]:
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        for channel in ("pump.a", "cam.b"):
            messenger.register_producer(channel, INFO).result(5)
        yield messenger


@pytest.fixture
def ann(broker: BrokerService) -> Iterator[Messenger]:
    key = KeyPair.random()
    enroll(key.public, name="ann")
    with Messenger(key) as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        yield messenger


def names(messenger: Messenger) -> list[str]:
    return [entry.channel_name for entry in messenger.list_channels()]


def test_a_refusal_is_typed_and_says_what_is_missing(owner: Messenger, ann: Messenger) -> None:
    assert names(owner) == ["cam.b", "pump.a"]
    assert names(ann) == ["pump.a"]
    assert ann.query_schema("pump.a") is None
    with pytest.raises(AccessDenied, match=r"the key ann may not consume channel 'cam\.b'") as caught:
        ann.query_schema("cam.b")
    error = caught.value
    assert (error.key, error.channel, error.right) == ("ann", "cam.b", "consume")
    assert error.grant == '[access.ann]\nconsume = ["pump.*", "ann.*", "cam.b"]'
    assert isinstance(error, PermissionError)
    ann.register_producer("ann.x", INFO).result(5)
    with pytest.raises(AccessDenied, match=r"may not produce channel 'pump\.a'"):
        ann.register_producer("pump.a", INFO).result(5)
    assert "may not produce" in ann.connection.rejected["pump.a"]
    with pytest.raises(AccessDenied, match="may not administer the broker itself"):
        ann.query_metrics()
    with pytest.raises(AccessDenied) as caught:
        ann.discover_producer("cam.b")
    assert caught.value.right == "consume"
    assert owner.query_metrics().values["refused.ACCESS_DENIED"] == 4


def test_a_change_is_followed_and_what_is_withdrawn_is_refused_at_once(
    owner: Messenger, ann: Messenger, broker: BrokerService, settings: Path, wait_until: Wait
) -> None:
    heard: list[Event | Gap] = []
    ann.watch("*", heard.append)
    assert heard == [Gap(anew=True)]
    owner.register_producer("pump.b", INFO).result(5)
    wait_until(lambda: len(heard) == 2)
    ann.register_producer("ann.x", INFO).result(5)
    wait_until(lambda: len(heard) == 3)
    settings.write_text('[access.ann]\nconsume = ["cam.*"]\n')
    wait_until(lambda: names(ann) == ["cam.b"])
    with pytest.raises(AccessDenied, match=r"consume channel 'pump\.a'"):
        ann.query_schema("pump.a")
    with pytest.raises(AccessDenied, match=r"produce channel 'ann\.x'"):
        ann.deregister_producer("ann.x").result(5)
    owner.register_producer("pump.c", INFO).result(5)  # of which she hears nothing
    wait_until(lambda: heard[-1] == Gap(anew=True))  # her watch was renewed: time to list what she may see now
    owner.register_producer("pump.d", INFO).result(5)
    owner.register_producer("cam.e", INFO).result(5)
    wait_until(lambda: isinstance(heard[-1], Event))
    assert [item.channel_name for item in heard if isinstance(item, Event)] == ["pump.b", "ann.x", "cam.e"]


def test_a_channel_whose_producer_may_no_longer_is_told_so_with_the_next_heartbeat(
    ann: Messenger, settings: Path, wait_until: Wait
) -> None:
    ann.register_producer("ann.x", INFO).result(5)
    settings.write_text("[access.ann]\n")
    wait_until(lambda: "may not produce" in ann.connection.rejected.get("ann.x", ""))
    assert ann.connection.registered == ()


def test_a_broken_file_leaves_the_rules_as_they_were_and_says_so(
    ann: Messenger, settings: Path, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    right = settings.read_text()
    with connect() as hub:
        assert hub.status.settings_error == ""
        settings.write_text('[access.ann]\nconsum = ["*"]\n')
        wait_until(lambda: any(getattr(r, "event", "") == "settings_refused" for r in caplog.records))
        for said in (hub.status.settings_error, hub.status.explain(), hub.status._repr_html_(), caplog.text):
            assert "line 2" in said
            assert "access.ann.consum" in said
        with pytest.raises(AccessDenied):
            ann.query_schema("cam.b")
        assert ann.list_channels() == []
        settings.write_text(right.replace("pump", "cam"))
        wait_until(lambda: hub.status.settings_error == "" and "new access rules" in caplog.text)


def test_a_name_given_later_counts_at_once(broker: BrokerService, owner: Messenger, settings: Path) -> None:
    key = KeyPair.random()
    enroll(key.public)
    with Messenger(key) as guest:
        assert guest.connect(broker.endpoint, broker.public_key)
        assert names(guest) == ["cam.b", "pump.a"]  # without a rule of its own, as ever
        assert not enroll(key.public, name="ann")
        assert names(guest) == ["pump.a"]


def test_the_settings_of_the_broker_itself(settings: Path) -> None:
    settings.write_text(f'[broker]\nlisten = "{ANY_PORT}"\nmax_watches_per_key = 1\n')
    with named_broker() as service:
        assert (service.config.endpoint, service.config.max_watches_per_key) == (ANY_PORT, 1)
        service.start()
        assert runtime.find().settings == str(settings)
    with named_broker(endpoint="tcp://127.0.0.1:5599") as service:
        assert service.config.endpoint == "tcp://127.0.0.1:5599"


@pytest.mark.parametrize("begin", [named_broker, start_broker])
def test_no_broker_begins_with_a_broken_file(settings: Path, begin: Callable[..., object]) -> None:
    def begun(**options: object) -> None:
        found = begin("default", ANY_PORT, **options)
        if begin is named_broker:
            found.__enter__()

    settings.write_text("[access.ann]\nconsume = 3\n")
    with pytest.raises(InvalidSettings, match=r"line 2: access\.ann\.consume"):
        begun()
    with pytest.raises(InvalidSettings, match="No such file"):
        begun(config=settings.with_name("other.toml"))
    assert runtime.find() is None


def test_hangup_lets_a_process_read_its_settings_again(private_dirs: Path, wait_until: Wait) -> None:
    elsewhere = private_dirs / "mine.toml"
    elsewhere.write_text("[access.ann]\n")
    key = KeyPair.random()
    enroll(key.public, name="ann")
    running = start_broker(endpoint=ANY_PORT, config=elsewhere)
    try:
        assert running.settings == str(elsewhere)
        with Messenger() as owner, Messenger(key) as ann:
            for messenger in (owner, ann):
                assert messenger.connect(running.endpoint, running.public_key)
            owner.register_producer("pump.a", INFO).result(5)
            assert names(ann) == []
            status = elsewhere.stat()
            elsewhere.write_text("[access.bob]\n")  # of the same size; on some file systems also of the same time
            os.utime(elsewhere, ns=(status.st_atime_ns, status.st_mtime_ns))
            os.kill(running.pid, signal.SIGHUP)
            wait_until(lambda: names(ann) == ["pump.a"])
    finally:
        stop_broker()
