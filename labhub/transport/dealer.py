"""A client's socket: a DEALER that knows how its handshake went."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Literal, Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from labhub.errors import AuthenticationError, BrokerUnreachable, InvalidArgument
from labhub.transport.curve import KeyPair, check_public_key
from labhub.transport.greeting import greets
from labhub.transport.room import require_room

Link = Literal["connecting", "connected", "unauthorized", "wrong_server_key"]

HANDSHAKE_PATIENCE = 1.8
"""How long a TCP connection may last without a finished handshake (in seconds). A server with another key says nothing
at all: this silence is how a client notices."""

_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Dealer:
    """A connecting DEALER socket with a monitor, in a context of its own. One thread owns it.

    Parameters
    ----------
    endpoint : str
        Where the broker listens.
    server_key : str
        The broker's public key (z85); empty switches CURVE off, which only tests do.
    key : KeyPair
        The client's key.

    Raises
    ------
    InvalidArgument
        If the endpoint or the server's key cannot be one.
    SegmentSpaceError
        If there are too few open files, or too little address space, for a connection.
    """

    def __init__(self, endpoint: str, server_key: str, key: KeyPair) -> None:
        self.endpoint = endpoint
        self.server_key = server_key
        self.link: Link = "connecting"
        self.handshakes = 0  # finished so far; more than one means that the broker came back
        self._tcp_since: float | None = None
        self._doubts = 0  # connections that ended before the handshake did
        self.mute = False  # whether the last look found that nobody says a word there
        server = check_public_key(server_key, "server's public key") if server_key else b""
        require_room()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 200)  # the last deregistration still leaves
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        # Below the 2 s within which a broker that came back with another key is to be noticed.
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, 2000)  # the kernel alone would try ever more seldom
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a broker that is not there
        if server:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, server)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise InvalidArgument(f"{endpoint!r} is not an endpoint such as tcp://127.0.0.1:5570: {error}") from None

    def poll(self, seconds: float, wake: int) -> None:
        """Wait until a message, an event or the descriptor `wake` needs attention."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        poller.register(wake, zmq.POLLIN)
        poller.poll(max(0, round(seconds * 1000)))

    def receive(self) -> list[bytes] | None:
        """Return the frames of the next message, or None if there is none now."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def send(self, frames: list[bytes]) -> bool:
        """Send one message; False if there is no connection that could take it."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def update(self, now: float) -> Link:
        """Read the monitor's events; the state of the link at `now` (monotonic, in seconds).

        Raises
        ------
        SegmentSpaceError
            If this process has no open file left to find out why the other end is silent.
        """
        while self._monitor.poll(0):
            self._take(recv_monitor_message(self._monitor)["event"], now)
        silent = self._tcp_since is not None and now - self._tcp_since > HANDSHAKE_PATIENCE
        if self.link == "connecting" and (silent or self._doubts >= 2):
            self._tcp_since, self._doubts = None, 0
            self.mute = not greets(self.endpoint)
            if not self.mute:
                self.link = "wrong_server_key"
        return self.link

    def _take(self, event: int, now: float) -> None:
        match event:
            case zmq.EVENT_CONNECTED:
                self._tcp_since = now
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.link, self._tcp_since, self._doubts, self.mute = "connected", None, 0, False
                self.handshakes += 1
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.link, self._tcp_since = "unauthorized", None
            case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED:
                if self._tcp_since is not None:
                    self._doubts += 1
                elif self.link == "connected":
                    self.link = "connecting"
                self._tcp_since = None

    def handshake(self, timeout: float) -> bool:
        """Wait for the handshake; False if nothing answers at all within `timeout` (in seconds).

        Raises
        ------
        AuthenticationError
            If the server refuses the client's key, or has another key than the one that was given.
        BrokerUnreachable
            If connections are made there, and nobody says a word on them.
        """
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if self.update(now) != "connecting":
                self.require_authentic()
                return True
            self.require_a_word()
            if now >= deadline:
                return False
            self._monitor.poll(min(50, max(1, round((deadline - now) * 1000))))

    def require_authentic(self) -> None:
        """Raise if one of the two keys was refused.

        Raises
        ------
        AuthenticationError
        """
        if self.link == "unauthorized":
            raise AuthenticationError(
                f"the broker at {self.endpoint} refused this client's key; use the same user, or have it enrolled"
            )
        if self.link == "wrong_server_key":
            raise AuthenticationError(
                f"{self.endpoint} does not answer to the public key that was given: the key is wrong or outdated, or "
                "this is no labhub broker; copy the key from the broker's start-up lines"
            )

    def require_a_word(self) -> None:
        """Raise if connections are made, and nobody says a word on them.

        Raises
        ------
        BrokerUnreachable
        """
        if self.mute:
            raise BrokerUnreachable(
                f"a connection to {self.endpoint} is made, but nobody says a word on it: the broker has no open files "
                "left (ulimit -n) or is stopped, or this is no labhub broker; `labhub doctor` looks at its process",
                endpoint=self.endpoint,
            )

    def close(self) -> None:
        """Disconnect. Twice is harmless."""
        if self._context.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
