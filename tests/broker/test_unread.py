"""A client that asks for lists and reads none: what waits for it is bounded in bytes, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import zmq

from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo
from labhub.errors import QuotaExceeded
from labhub.protocol.client_state import Gap
from labhub.protocol.messages import Event
from labhub.transport.curve import CLIENT_KEY, load_key
from labhub.transport.unread import CONNECTIONS, Unread

LIMIT = 200_000
PAGE = 100_000
ASKED = 40
Wait = Callable[..., None]


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0", max_unread_nbytes=LIMIT)) as service:
        yield service


@pytest.fixture
def owner(broker: BrokerService) -> Iterator[Messenger]:
    """A client that has registered what makes one list of about `PAGE` bytes."""
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        for name in ("a", "b"):
            info = ProducerInfo(name, 1, bytes(32), 1, {"text": "x" * (PAGE // 2)})
            messenger.register_producer(name, info).result(5)
        yield messenger


@contextmanager
def deaf(broker: BrokerService) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER of this user's that reads only when told: its buffers hold a few messages."""
    key = load_key(CLIENT_KEY)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        for option, value in ((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.LINGER, 0)):
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.CURVE_SERVERKEY, broker.public_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        socket.connect(broker.endpoint)
        yield socket


def ask(socket: zmq.Socket[bytes], times: int) -> None:
    for k in range(times):
        socket.send_multipart([b"LIST_REQ", json.dumps({"correlation_id": str(k)}).encode()])


def numbers(owner: Messenger) -> dict[str, float]:
    return dict(owner.query_metrics().values)


def test_bytes_bound_what_waits_for_a_client_that_does_not_read(
    broker: BrokerService, owner: Messenger, wait_until: Wait
) -> None:
    with deaf(broker) as socket:
        ask(socket, ASKED * 10)
        wait_until(lambda: numbers(owner).get("refused.QUOTA_EXCEEDED", 0) >= ASKED * 2)
        assert numbers(owner)["unread_nbytes"] <= LIMIT + 2 * PAGE
        # Others, even with the same key, are answered.
        assert [entry.channel_name for entry in owner.list_channels()] == ["a", "b"]
        assert owner.discover_producer("a") is not None
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        kinds = [socket.recv_multipart()[0] for _ in range(ASKED * 10)]
        assert set(kinds) == {b"LIST_ACK", b"ERROR"}
        # What was read counts no more, and the client is served again.
        wait_until(lambda: numbers(owner)["unread_nbytes"] == 0)
        ask(socket, 1)
        assert socket.recv_multipart()[0] == b"LIST_ACK"


def test_the_refusal_says_what_to_do(broker: BrokerService, owner: Messenger) -> None:
    with deaf(broker) as socket:
        ask(socket, ASKED * 2)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        replies = [socket.recv_multipart() for _ in range(ASKED * 2)]
    refused = [json.loads(body) for kind, body in replies if kind == b"ERROR"]
    assert refused
    assert {reply["error_code"] for reply in refused} == {"QUOTA_EXCEEDED"}
    assert "bytes of answers wait for this connection to read them; read them first" in refused[0]["message"]


def test_what_waited_for_a_client_that_left_is_given_back(
    broker: BrokerService, owner: Messenger, wait_until: Wait
) -> None:
    with deaf(broker) as socket:
        ask(socket, ASKED)
        wait_until(lambda: numbers(owner).get("refused.QUOTA_EXCEEDED", 0))
    wait_until(lambda: numbers(owner)["unread_nbytes"] == 0)


def test_a_long_event_that_is_dropped_is_counted_and_its_watcher_notices(
    broker: BrokerService, owner: Messenger, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event | Gap] = []
    owner.watch("*", heard.append)
    with monkeypatch.context() as full:
        full.setattr(broker._router.unread, "excess", lambda *_: "9 bytes wait")  # type: ignore[union-attr]
        owner.register_producer("c", ProducerInfo("c", 1, bytes(32), 1, {"text": "y" * 5000})).result(5)
        owner.register_producer("d", ProducerInfo("d", 1, bytes(32), 1)).result(5)  # a short one gets through
        assert numbers(owner)["answers_dropped"] == 1
    wait_until(lambda: len(heard) == 3)
    assert heard[:2] == [Gap(anew=True), Gap(anew=False)]
    assert heard[2].channel_name == "d"  # type: ignore[union-attr]


def sent(*, done: bool = False) -> SimpleNamespace:
    return SimpleNamespace(done=done)


def test_the_books_are_kept_for_each_connection_and_each_key() -> None:
    unread = Unread(100)
    first, second = sent(), sent()
    unread.add(b"a", "k", first, 60)
    assert unread.excess(b"a", "k") == ""
    unread.add(b"a", "k", second, 60)
    assert "120 bytes" in unread.excess(b"a", "k")
    assert unread.excess(b"b", "k") == unread.excess(b"c", "other") == ""
    first.done = True
    assert unread.excess(b"a", "k") == ""
    assert unread.nbytes == 60
    many = [sent() for _ in range(CONNECTIONS)]
    for k, item in enumerate(many):
        unread.add(b"%d" % k, "k", item, 99)
    assert "the connections of this client key" in unread.excess(b"new", "k")
    assert unread.excess(b"new", "other") == ""
    for item in (second, *many):
        item.done = True
    assert unread.excess(b"new", "k") == ""
    unread.settle()
    assert (unread.nbytes, unread._waiting, dict(unread._of_connection), dict(unread._of_key)) == (0, {}, {}, {})


def test_a_messenger_raises_it_typed(broker: BrokerService, owner: Messenger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker._router.unread, "excess", lambda *_: "9 bytes wait")  # type: ignore[union-attr]
    with pytest.raises(QuotaExceeded, match="9 bytes wait"):
        owner.list_channels()
