"""What somebody on the way can do with the bytes of a session: record, repeat, change and swap them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from labhub import BrokerConfig, BrokerService, Messenger, ProducerInfo


class Relay:
    """Passes the bytes between clients and a broker on, keeps what clients said, and can meddle with it.

    Attributes
    ----------
    endpoint : str
        Where clients find it.
    said : list of bytes
        What each connection's client said, in full.
    """

    def __init__(self, broker: BrokerService) -> None:
        host, port = broker.endpoint.removeprefix("tcp://").split(":")
        self._to = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.said: list[bytes] = []
        self._meddle: Callable[[bytes], bytes] | None = None
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._to)
                self._open += [client, server]
                self.said.append(b"")
                self._start(self._pass_on, client, server, len(self.said) - 1)
                self._start(self._pass_on, server, client, None)

    def _pass_on(self, source: socket.socket, sink: socket.socket, number: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if number is not None:
                    self.said[number] += data
                    if self._meddle is not None:
                        meddle, self._meddle = self._meddle, None
                        data = meddle(data)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def meddle_once(self, how: Callable[[bytes], bytes]) -> None:
        """Change what a client says next."""
        self._meddle = how

    @property
    def meddled(self) -> bool:
        """Whether that has happened."""
        return self._meddle is None

    def close(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")) as service:
        yield service


@pytest.fixture
def relay(broker: BrokerService) -> Iterator[Relay]:
    relay = Relay(broker)
    yield relay
    relay.close()


@pytest.fixture
def owner(broker: BrokerService) -> Iterator[Messenger]:
    """Somebody whose connection is not meddled with."""
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        yield messenger


def info() -> ProducerInfo:
    return ProducerInfo("recognisable", os.getpid(), bytes(32), 1, {"note": "recognisable"})


GREETING_AND_HELLO = 64 + 202
"""What a client says before it hears anything of the broker's (in bytes; ZMTP 3.1 and CurveZMQ)."""


def play(broker: BrokerService, session: bytes) -> bytes:
    """Say recorded bytes to a broker, when their turn comes; everything that it answers before it hangs up."""
    host, port = broker.endpoint.removeprefix("tcp://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(session[:GREETING_AND_HELLO])
        while b"WELCOME" not in answer:
            more = connection.recv(1 << 16)
            assert more, "the broker hung up early"
            answer += more
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(session[GREETING_AND_HELLO:])
            while more := connection.recv(1 << 16):
                answer += more
    return answer


def test_a_recorded_session_cannot_be_played_again(broker: BrokerService, relay: Relay, owner: Messenger) -> None:
    with Messenger() as messenger:
        assert messenger.connect(relay.endpoint, broker.public_key)
        messenger.register_producer("recognisable", info()).result(30)
        messenger.deregister_producer("recognisable").result(30)
    (session,) = relay.said
    assert len(session) > 1000
    assert b"recognisable" not in session
    before = owner.query_metrics().values
    assert before["registrations"] == 1
    for _ in range(3):
        assert b"READY" not in play(broker, session)  # which is what would let it in
    after = owner.query_metrics().values
    assert {**after, "uptime_s": 0} == {**before, "uptime_s": 0}
    assert owner.list_channels() == []


@pytest.mark.parametrize(
    "how",
    [lambda data: data * 2, lambda data: data[:-1] + bytes([data[-1] ^ 1])],
    ids=["said twice", "one bit changed"],
)
def test_meddling_breaks_that_connection_only(
    how: Callable[[bytes], bytes],
    broker: BrokerService,
    relay: Relay,
    owner: Messenger,
    wait_until: Callable[..., None],
) -> None:
    with Messenger() as messenger:
        assert messenger.connect(relay.endpoint, broker.public_key)
        messenger.register_producer("c", info()).result(30)
        before = owner.query_metrics().values["registrations"]
        relay.meddle_once(how)
        messenger.register_consumer("c")
        wait_until(lambda: relay.meddled, 30)
        wait_until(lambda: len(relay.said) >= 2, 30, "a new connection")  # the broker hung up, and the client came back
        wait_until(lambda: messenger.status == "connected", 30)
        assert [entry.channel_name for entry in messenger.list_channels()] == ["c"]
        assert owner.query_metrics().values["registrations"] == before
        assert owner.status == "connected"
        messenger.deregister_producer("c").result(30)
