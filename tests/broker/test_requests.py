"""What a Messenger can ask a broker besides where a channel is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo
from labhub.errors import (
    BrokerUnreachable,
    ChannelNotFound,
    InvalidArgument,
    InvalidName,
    ProtocolError,
    QuotaExceeded,
    TimeoutExpired,
)
from labhub.protocol.client_state import Gap
from labhub.protocol.messages import Event

ANY_PORT = "tcp://127.0.0.1:0"


def info(**metadata: Any) -> ProducerInfo:
    return ProducerInfo("c", os.getpid(), bytes(32), 1, metadata)


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT, max_watches_per_key=2)) as service:
        yield service


@pytest.fixture
def messenger(broker: BrokerService) -> Iterator[Messenger]:
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        yield messenger


def test_the_schema_of_a_channel(messenger: Messenger) -> None:
    with pytest.raises(ChannelNotFound):
        messenger.query_schema("c")
    messenger.register_producer("c", info(schema="{}")).result(5)
    assert messenger.query_schema("c") == "{}"
    with pytest.raises(InvalidName):
        messenger.query_schema("c*")
    with pytest.raises(InvalidName):
        messenger.query("c*")


def test_metrics_of_a_channel_and_of_the_broker(messenger: Messenger, broker: BrokerService) -> None:
    messenger.register_producer("c", info()).result(5)
    assert messenger.query_metrics("c").age_s is None
    messenger.report_metrics("c", {"rate": 1, "lag": 2.5}).result(5)
    found = messenger.query_metrics("c")
    assert found.values == {"rate": 1.0, "lag": 2.5}
    assert found.age_s is not None
    assert found.age_s < 5
    with pytest.raises(ChannelNotFound):
        messenger.report_metrics("c", {}, producer_pid=1).result(5)
    own = messenger.query_metrics()
    assert own.values["channels"] == 1
    assert own.values["refused.NOT_REGISTERED"] == 1
    assert 0 <= own.values["uptime_s"] <= broker.uptime + 0.001  # it is told in whole milliseconds


@pytest.mark.parametrize(
    "metrics", [None, 7, {"a": "b"}, {"a": None}, {7: 1.0}, {"a": float("nan")}, {"a": float("inf")}, {"a": 10**400}]
)
def test_metrics_that_are_none(messenger: Messenger, metrics: Any) -> None:
    with pytest.raises(InvalidArgument, match="metric"):
        messenger.report_metrics("c", metrics)
    with pytest.raises(InvalidArgument, match="at most 100"):
        messenger.report_metrics("c", {str(k): 1.0 for k in range(101)})


@pytest.mark.parametrize("seq", [-1, True, "7", 2**63, 1.0])
def test_seqs_that_are_none(messenger: Messenger, seq: Any) -> None:
    with pytest.raises(InvalidArgument):
        messenger.report_checksum_error("c", seq)


def test_a_watch_hears_of_everything_and_ends(messenger: Messenger, wait_until: Callable[..., None]) -> None:
    heard: list[Event | Gap] = []
    watch = messenger.watch("c*", heard.append)
    assert heard == [Gap(anew=True)]
    messenger.register_producer("c", info()).result(5)
    messenger.report_checksum_error("c", 7).result(5)
    messenger.deregister_producer("c").result(5)
    wait_until(lambda: len(heard) == 4)
    assert [str(event.event) for event in heard[1:]] == ["appeared", "checksum_error", "gone"]  # type: ignore[union-attr]
    messenger.unwatch(watch)
    messenger.unwatch(watch)
    messenger.register_producer("c", info()).result(5)
    assert messenger.query_metrics().values["watches"] == 0
    assert len(heard) == 4


def test_too_many_watches_and_bad_ones(messenger: Messenger) -> None:
    for _ in range(2):
        messenger.watch("*", lambda _: None)
    with pytest.raises(QuotaExceeded, match="2 watches"):
        messenger.watch("*", lambda _: None)
    for pattern in ("", "x" * 257, None, 7):
        with pytest.raises(InvalidArgument, match="pattern"):
            messenger.watch(pattern, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(BrokerUnreachable, match="no connection"):
        Messenger().watch("*", lambda _: None)


def test_long_lists_of_big_channels_come_whole(messenger: Messenger) -> None:
    futures = [messenger.register_producer(f"c{k:03}", info(note="x" * 60_000)) for k in range(150)]
    for future in futures:
        future.result(10)
    found = messenger.list_channels()
    assert [entry.channel_name for entry in found] == [f"c{k:03}" for k in range(150)]
    assert all(len(entry.metadata["note"]) == 60_000 for entry in found)


def test_a_list_that_changes_between_its_pages_is_read_again(messenger: Messenger, broker: BrokerService) -> None:
    for k in range(150):
        messenger.register_producer(f"c{k:03}", info()).result(5)
    assert broker._state is not None
    listed, asked = broker._state._list, []

    def list_while_the_first_channel_leaves(peer: Any, request: Any, now: float) -> Any:
        asked.append(request.offset)
        page = listed(peer, request, now)
        if len(asked) == 1:
            broker._state._forget(broker._state.registry.find_channel("c000"))  # type: ignore[union-attr, arg-type]
            broker._state.version += 1  # type: ignore[union-attr]
        return page

    broker._state._list = list_while_the_first_channel_leaves  # type: ignore[method-assign]
    found, version = messenger.read_directory()
    assert [entry.channel_name for entry in found] == [f"c{k:03}" for k in range(1, 150)]
    assert asked == [0, 100, 0, 100]
    assert version == broker._state.version


def test_a_message_that_is_too_long_is_refused_here_and_the_rest_goes_on(messenger: Messenger) -> None:
    with pytest.raises(ProtocolError, match="shorten its metadata"):
        messenger.register_producer("c", info(note="x" * 70_000)).result(5)
    assert messenger.list_channels() == []
    assert messenger.status == "connected"


def test_requests_to_a_broker_that_is_away_are_bounded(wait_until: Callable[..., None]) -> None:
    with Messenger() as messenger:
        with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as broker:
            messenger.connect(broker.endpoint, broker.public_key)
        wait_until(lambda: messenger.status == "connecting")
        futures = [messenger.register_consumer("c") for _ in range(1500)]
        worker = messenger._worker
        assert worker is not None
        wait_until(worker._work.empty)
        assert len(worker._unsent) == 1000
        with pytest.raises((BrokerUnreachable, TimeoutExpired)):
            futures[0].result(10)


def test_disconnecting_in_mid_request_ends_it(messenger: Messenger) -> None:
    done = threading.Event()
    messenger.watch("*", lambda _: done.set())
    messenger.disconnect()
    assert done.is_set()
    messenger.unwatch("anything")
    with pytest.raises(BrokerUnreachable):
        messenger.query_metrics()


def test_whoever_cancels_a_request_does_not_end_the_messenger(messenger: Messenger) -> None:
    for _ in range(3):
        messenger.register_producer("c", info()).cancel()
        messenger.report_checksum_error("c", 1).cancel()
    assert [entry.channel_name for entry in messenger.list_channels()] == ["c"]
    assert messenger.connection is not None
    assert messenger.connection.error == ""


def test_a_watcher_that_raises_ends_neither_the_messenger_nor_other_watches(
    messenger: Messenger, wait_until: Callable[..., None], failures: list[str]
) -> None:
    def raises(item: Event | Gap) -> None:
        raise KeyError("odd")

    heard: list[Event | Gap] = []
    messenger.watch("*", raises)
    messenger.watch("*", heard.append)
    messenger.register_producer("c", info()).result(5)
    wait_until(lambda: any(isinstance(item, Event) for item in heard))
    assert messenger.list_channels()
    assert failures
    assert all("KeyError: 'odd'" in failure for failure in failures)


def test_what_fails_in_the_thread_is_shown_until_it_works_again(
    messenger: Messenger, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None], failures: list[str]
) -> None:
    state = messenger._worker._state  # type: ignore[union-attr]
    tick = state.tick

    def fails(now: float, *, connected: bool = True) -> list[list[bytes]]:
        raise ZeroDivisionError("odd")

    def error() -> str:
        assert messenger.connection is not None
        return messenger.connection.error

    monkeypatch.setattr(state, "tick", fails)
    wait_until(lambda: error() == "ZeroDivisionError: odd")
    monkeypatch.setattr(state, "tick", tick)
    wait_until(lambda: error() == "")
    assert messenger.list_channels() == []
    assert failures


def test_a_messenger_whose_thread_has_ended_says_why(
    messenger: Messenger, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None], failures: list[str]
) -> None:
    worker = messenger._worker
    assert worker is not None

    def ends(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(worker._dealer, "poll", ends)
    wait_until(lambda: not worker._thread.is_alive())
    assert messenger.status == "disconnected"
    assert messenger.connection is not None
    assert messenger.connection.error == "SystemExit: 3"
    with pytest.raises(BrokerUnreachable, match="SystemExit: 3"):
        messenger.list_channels()
    assert failures == ["thread_failed: labhub-messenger: SystemExit: 3"]
