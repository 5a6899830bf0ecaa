"""A broker that has no open files left, or is stopped: told as such, and never as a wrong key."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from labhub import BrokerConfig, BrokerService, Messenger, runtime
from labhub.doctor import examine
from labhub.errors import AuthenticationError, BrokerUnreachable, SegmentSpaceError
from labhub.hub import start_broker, stop_broker
from labhub.runtime import ConnectionFile
from labhub.transport.curve import KeyPair
from labhub.transport.dealer import Dealer
from labhub.transport.greeting import greets

Wait = Callable[..., None]


@pytest.fixture
def running() -> Iterator[ConnectionFile]:
    yield start_broker(endpoint="tcp://127.0.0.1:0")
    if runtime.find_live():
        stop_broker()


def address(endpoint: str) -> tuple[str, int]:
    host, port = endpoint.removeprefix("tcp://").split(":")
    return host, int(port)


def test_a_broker_without_open_files_is_told_as_such(running: ConnectionFile, wait_until: Wait) -> None:
    process = psutil.Process(running.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    most = process.num_fds() + 4
    with ExitStack() as stack, Messenger() as before, Messenger() as newcomer:
        assert before.connect(running.endpoint, running.public_key)
        process.rlimit(psutil.RLIMIT_NOFILE, (most, hard))
        idle = [stack.enter_context(socket.create_connection(address(running.endpoint), 30)) for _ in range(12)]
        wait_until(lambda: process.num_fds() >= most)
        with pytest.raises(BrokerUnreachable, match=r"no open files left \(ulimit -n\)") as caught:
            newcomer.connect(running.endpoint, running.public_key, timeout=3)
        assert not isinstance(caught.value, AuthenticationError)
        wait_until(lambda: before.query_metrics().values["out_of_files"] == 1)  # who is connected is served
        found = [f for f in examine() if f.check == "brokers" and f.severity == "problem"]
        assert any("open files" in f.what for f in found), found
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        wait_until(lambda: before.query_metrics().values["out_of_files"] == 0)
        for connection in idle:
            connection.close()
        assert newcomer.connect(running.endpoint, running.public_key, timeout=30)


def test_a_listener_that_says_nothing_is_no_wrong_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        assert not greets(endpoint, 0.1)
        with Messenger() as messenger, pytest.raises(BrokerUnreachable, match="nobody says a word"):
            messenger.connect(endpoint, KeyPair.random().public, timeout=3)
    assert not greets(endpoint, 0.1)
    assert greets("inproc://x")


def test_a_wrong_key_is_still_told_as_such() -> None:
    with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")) as broker, Messenger() as messenger:
        assert greets(broker.endpoint, 10)
        with pytest.raises(AuthenticationError, match="does not answer to the public key"):
            messenger.connect(broker.endpoint, KeyPair.random().public)


def test_a_client_without_open_files_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        endpoint = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with Dealer(endpoint, KeyPair.random().public, KeyPair.random()) as dealer:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = socket.socket()
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (taken.fileno(), hard))
                dealer._doubts = 2
                with pytest.raises(SegmentSpaceError, match="ulimit -n"):
                    dealer.update(0.0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                taken.close()
