"""The broker's shell: starting, stopping, ports, and clients that outlive it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import pytest

from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo, liveness
from labhub.errors import (
    BrokerUnreachable,
    ChannelBusy,
    ClosedError,
    InvalidArgument,
    InvalidName,
    LabHubError,
    SchemaMismatch,
    SegmentSpaceError,
)

ANY_PORT = "tcp://127.0.0.1:0"


def info(pid: int | None = None, schema_hash: bytes = bytes(32)) -> ProducerInfo:
    return ProducerInfo("c", os.getpid() if pid is None else pid, schema_hash, 1)


def test_on_ready_tells_endpoint_and_key() -> None:
    told: list[tuple[str, str]] = []
    with BrokerService(BrokerConfig(ANY_PORT, on_ready=lambda *place: told.append(place))) as broker:
        assert told == [(broker.endpoint, broker.public_key)]
        assert len(broker.public_key) == 40
        assert broker.uptime >= 0
    assert not [t for t in threading.enumerate() if t.name.startswith("labhub")]


def test_it_starts_once_and_stops_any_number_of_times() -> None:
    broker = BrokerService(BrokerConfig(ANY_PORT))
    broker.start()
    with pytest.raises(InvalidArgument, match="started before"):
        broker.start()
    broker.stop()
    broker.stop()


def test_run_serves_in_the_foreground_until_stop(wait_until: Callable[..., None]) -> None:
    broker = BrokerService(BrokerConfig(ANY_PORT))
    thread = threading.Thread(target=broker.run)
    thread.start()
    wait_until(lambda: broker.public_key)
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
    broker.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_taken_default_port_is_replaced_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable, match="cannot listen"):
            BrokerService(BrokerConfig(endpoint)).start()
        monkeypatch.setattr("labhub.broker.DEFAULT_ENDPOINT", endpoint)
        with BrokerService(BrokerConfig(endpoint)) as broker:
            assert broker.endpoint != endpoint


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "udp://x:1"])
def test_bad_endpoints_are_named(endpoint: str) -> None:
    with pytest.raises(LabHubError):
        BrokerService(BrokerConfig(endpoint)).start()


def test_a_rejected_registration_is_raised_where_the_caller_looks(caplog: pytest.LogCaptureFixture) -> None:
    with BrokerService(BrokerConfig(ANY_PORT)) as broker, Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        messenger.register_producer("c", info()).result(5)
        with pytest.raises(SchemaMismatch):
            messenger.register_producer("c", info(schema_hash=b"\1" * 32)).result(5)
        with pytest.raises(ChannelBusy, match=f"process {os.getpid()}"):
            messenger.register_producer("c", info(pid=1)).result(5)
        assert "was not registered" in caplog.text
        with pytest.raises(InvalidArgument, match="32 bytes"):
            messenger.register_producer("c", info(schema_hash=b""))
        with pytest.raises(InvalidName):
            messenger.register_producer("../c", info())
        assert messenger.query("c") is not None


def test_a_messenger_that_is_not_connected_says_so() -> None:
    with pytest.raises(BrokerUnreachable, match="connect"):
        Messenger().discover_producer("c")
    with pytest.raises(BrokerUnreachable, match="connect"):
        Messenger().register_producer("c", info())


def test_registrations_survive_a_broker_without_memory(wait_until: Callable[..., None]) -> None:
    with Messenger() as messenger:
        with BrokerService(BrokerConfig(ANY_PORT)) as broker:
            endpoint = broker.endpoint
            assert messenger.connect(endpoint, broker.public_key)
            messenger.register_producer("c", info()).result(5)
        wait_until(lambda: messenger.status == "connecting")
        assert messenger.discover_producer("c", timeout_ms=50) is None
        with BrokerService(BrokerConfig(endpoint)) as again, Messenger() as other:
            assert other.connect(endpoint, again.public_key)
            wait_until(lambda: other.query("c"), what="registration with the new broker")
            assert messenger.status == "connected"


def test_disconnect_does_not_deregister() -> None:
    with BrokerService(BrokerConfig(ANY_PORT)) as broker, Messenger() as other:
        assert other.connect(broker.endpoint, broker.public_key)
        messenger = Messenger()
        messenger.connect(broker.endpoint, broker.public_key)
        messenger.register_producer("c", info()).result(5)
        messenger.disconnect()
        messenger.disconnect()
        assert messenger.status == "disconnected"
        assert other.discover_producer("c") is not None


def test_long_lists_come_whole() -> None:
    with BrokerService(BrokerConfig(ANY_PORT)) as broker, Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        futures = [messenger.register_producer(f"c{k:03}", info()) for k in range(250)]
        for future in futures:
            future.result(5)
        assert [c.channel_name for c in messenger.list_channels()] == [f"c{k:03}" for k in range(250)]


def test_a_resolver_that_fails_is_asked_again(
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    places: list[tuple[str, str]] = []

    def resolve() -> tuple[str, str]:
        if not places:
            raise SegmentSpaceError("no file can be opened")
        return places[0]

    with Messenger() as messenger:
        with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as first:
            assert messenger.connect(first.endpoint, first.public_key, resolve=resolve)
        wait_until(lambda: "cannot follow the broker: no file can be opened" in caplog.text, 30)
        with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as second:
            places.append((second.endpoint, second.public_key))
            wait_until(lambda: messenger.status == "connected", 30)


def test_one_channel_that_cannot_be_judged_ends_neither_the_broker_nor_the_judging_of_others(
    monkeypatch, wait_until, failures
) -> None:
    """Nothing that can be registered is known to do this."""
    judge = liveness.judge

    def odd(shm_name, metadata):
        if shm_name == "bad":
            raise RecursionError("odd")
        return judge(shm_name, metadata)

    monkeypatch.setattr(liveness, "judge", odd)
    with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")) as broker, Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        for name in "bad", "good":
            messenger.register_producer(name, ProducerInfo(name, os.getpid(), bytes(32), 1)).result(5)
        wait_until(lambda: len(failures) > 2)
        assert [entry.channel_name for entry in messenger.list_channels()] == ["bad", "good"]
        assert broker.error is None
        assert broker.look().numbers["channels"] == 2
    assert all(failure.startswith("item_failed: labhub-broker, bad: RecursionError") for failure in failures)


def test_a_broker_whose_thread_has_ended_says_why(monkeypatch, wait_until, failures) -> None:
    broker = BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")).start()
    monkeypatch.setattr(broker._router, "poll", lambda *_: 1 / 0)
    wait_until(lambda: broker.error)
    assert "failed: ZeroDivisionError" in repr(broker)
    with pytest.raises(ClosedError, match="ZeroDivisionError"):
        broker.look()
    broker.stop()
    assert failures == ["thread_failed: labhub-broker: ZeroDivisionError: division by zero"]
