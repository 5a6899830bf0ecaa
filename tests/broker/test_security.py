"""Keys: whose are let in, which files are believed, and that it fails closed."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo
from labhub.errors import AuthenticationError, InvalidArgument
from labhub.transport.curve import CLIENT_KEY, ENROLLED, SERVER_KEY, KeyPair, data_directory, load_key
from labhub.transport.dealer import Dealer

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as service:
        yield service


def knock(broker: BrokerService, key: KeyPair, server_key: str = "") -> bool:
    with Messenger(key) as messenger:
        return messenger.connect(broker.endpoint, server_key or broker.public_key)


def test_the_users_own_key_opens_and_a_strangers_does_not(broker: BrokerService) -> None:
    assert knock(broker, load_key(CLIENT_KEY))
    began = time.monotonic()
    with pytest.raises(AuthenticationError, match="refused this client's key"):
        knock(broker, KeyPair.random())
    assert time.monotonic() - began < 2


def test_a_wrong_server_key_is_noticed(broker: BrokerService) -> None:
    began = time.monotonic()
    with pytest.raises(AuthenticationError, match="does not answer to the public key"):
        knock(broker, load_key(CLIENT_KEY), KeyPair.random().public)
    assert time.monotonic() - began < 2


def test_a_port_that_says_nothing_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(AuthenticationError, match="no labhub broker"):
            Messenger().connect(endpoint, KeyPair.random().public)
        assert time.monotonic() - began < 2.5


def test_nobody_there_is_false_and_nonsense_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    messenger = Messenger()
    assert not messenger.connect(f"tcp://127.0.0.1:{port}", KeyPair.random().public, timeout=0.3)
    for bad in ("short", "x" * 39, "\N{SNOWMAN}" * 40, b"\xff" * 40, 7):
        with pytest.raises(InvalidArgument, match="40 characters"):
            messenger.connect(f"tcp://127.0.0.1:{port}", bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="not an endpoint"):
        messenger.connect("somewhere", KeyPair.random().public)


def test_an_enrolled_key_opens_until_it_is_revoked(broker: BrokerService) -> None:
    guest = KeyPair.random()
    enrolled = data_directory() / ENROLLED
    enrolled.write_text(f"# guests\n{guest.public} ann\n")
    with Messenger(guest) as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        assert messenger.list_channels() == []
        enrolled.write_text("# nobody\n")
        with pytest.raises(AuthenticationError, match="allow-list"):
            messenger.list_channels()


def test_anybody_may_come_where_that_is_wanted() -> None:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT, allow="any")) as broker:
        assert knock(broker, KeyPair.random())


def test_a_dead_authenticator_lets_nobody_in(broker: BrokerService) -> None:
    assert broker._router is not None
    assert broker._router._authenticator is not None
    broker._router._authenticator.stop()
    for key in (load_key(CLIENT_KEY), KeyPair.random()):
        with Dealer(broker.endpoint, broker.public_key, key) as dealer:
            with contextlib.suppress(AuthenticationError):  # refused is as good as not let in
                assert not dealer.handshake(1.0)


def test_other_interfaces_need_an_enrolled_key() -> None:
    with pytest.raises(InvalidArgument, match="no client key is enrolled"):
        BrokerService(BrokerConfig(endpoint="tcp://0.0.0.0:0")).start()


@pytest.mark.parametrize("name", [SERVER_KEY, CLIENT_KEY])
def test_key_files_are_private_and_persistent(name: str) -> None:
    first = load_key(name)
    path = data_directory() / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(name) == first
    assert first.secret not in repr(first)
    assert sorted(p.name for p in data_directory().iterdir()) == [name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.chmod(0o644), "chmod 600"),
        (lambda p: p.write_text("nonsense"), "holds no key pair"),
        (lambda p: (p.rename(p.with_name("real")), p.symlink_to(p.with_name("real"))), "cannot be read"),
    ],
    ids=["readable by others", "garbage", "symbolic link"],
)
def test_key_files_that_are_not_to_be_trusted(spoil: Callable[[Path], Any], message: str) -> None:
    secret = load_key(CLIENT_KEY).secret
    spoil(data_directory() / CLIENT_KEY)
    with pytest.raises(AuthenticationError, match=message) as caught:
        load_key(CLIENT_KEY)
    assert secret not in str(caught.value)


def test_someone_elses_channel_is_not_deregistered(broker: BrokerService) -> None:
    guest = KeyPair.random()
    (data_directory() / ENROLLED).write_text(guest.public)
    with Messenger() as owner, Messenger(guest) as other:
        for messenger in (owner, other):
            assert messenger.connect(broker.endpoint, broker.public_key)
        owner.register_producer("c", ProducerInfo("c", os.getpid(), bytes(32), 1)).result(5)
        with pytest.raises(LookupError):
            other.deregister_producer("c").result(5)
        assert owner.discover_producer("c") is not None


def test_an_oversized_message_closes_its_connection_and_the_broker_serves_on() -> None:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT, use_curve=False)) as broker, zmq.Context() as context:
        with context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(broker.endpoint)
            client.send_multipart([b"DISC_REQ", bytes(1 << 20)])
            assert not client.poll(200)
        with context.socket(zmq.DEALER) as client:
            client.connect(broker.endpoint)
            client.send_multipart([b"LIST_REQ", b"{}"])
            assert client.poll(5000)
