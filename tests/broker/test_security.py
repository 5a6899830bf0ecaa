"""Keys: whose are let in, which files are believed, and that it fails closed."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labhub import BrokerConfig, BrokerService, ConsumerInfo, Messenger, ProducerInfo
from labhub.errors import AuthenticationError, BrokerUnreachable, ChannelBusy, ChannelNotFound, InvalidArgument
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, data_directory, load_key
from labhub.transport.enrolled import ENROLLED

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as service:
        yield service


def knock(broker: BrokerService, key: KeyPair) -> bool:
    with Messenger(key) as messenger:
        return messenger.connect(broker.endpoint, broker.public_key)


def test_a_port_that_says_nothing_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match=r"nobody says a word on it.* no labhub broker"):
            Messenger().connect(endpoint, KeyPair.random().public)
        assert time.monotonic() - began < 4.5  # before the end of its patience


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


def test_anybody_may_come_where_that_is_wanted() -> None:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT, allow="any")) as broker:
        assert knock(broker, KeyPair.random())


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
        (lambda p: p.write_text("nonsense"), "holds no key pair"),
        (lambda p: (p.rename(p.with_name("real")), p.symlink_to(p.with_name("real"))), "cannot be read"),
    ],
    ids=["garbage", "symbolic link"],
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


def test_a_strangers_key_takes_nothing_over(broker: BrokerService) -> None:
    """Whatever it has learnt from the broker itself about the channel, enrolled as it is: decision 7."""
    guest = KeyPair.random()
    (data_directory() / ENROLLED).write_text(guest.public)
    known = {"instance_id": "ab" * 16, "epoch": 1}
    with Messenger() as owner, Messenger(guest) as other:
        for messenger in (owner, other):
            assert messenger.connect(broker.endpoint, broker.public_key)
        owner.register_producer("c", ProducerInfo("c", os.getpid(), bytes(32), 1, known)).result(5)
        owner.report_metrics("c", {"rate": 1.0}).result(5)
        found = other.discover_producer("c")
        assert found is not None
        for metadata in ({}, found.metadata, found.metadata | {"epoch": 2}):
            with pytest.raises(ChannelBusy, match=str(os.getpid())):
                other.register_producer("c", ProducerInfo("elsewhere", os.getpid(), bytes(32), 1, metadata)).result(5)
        with pytest.raises(ChannelNotFound):
            other.report_metrics("c", {"rate": 2.0}, producer_pid=os.getpid()).result(5)
        assert other.query_metrics("c").values == {"rate": 1.0}
        assert other.discover_producer("c") == found
        taken_over = ProducerInfo("c", os.getpid(), bytes(32), 1, known | {"epoch": 2})
        owner.register_producer("c", taken_over).result(5)  # which the same key may
        assert other.discover_producer("c") == ConsumerInfo("c", bytes(32), 1, known | {"epoch": 2})
