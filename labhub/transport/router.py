"""The broker's socket: a ROUTER that lets in only whom the allow-list names."""

from __future__ import annotations

import errno
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.garbage import gc as collector

from labhub.errors import AuthenticationError, BrokerUnreachable, InvalidArgument
from labhub.protocol.messages import MAX_MESSAGE_NBYTES
from labhub.transport.curve import KeyPair
from labhub.transport.dealer import Dealer
from labhub.transport.enrolled import AllowList
from labhub.transport.room import require_room
from labhub.transport.unread import LONG, MAX_UNREAD_NBYTES, Unread

DOMAIN = "labhub"
HANDSHAKE_MS = 1500
"""A peer that has not finished its handshake by then is cut off (in milliseconds); libzmq's own 30 s would let a few
hundred idle connections lock everybody else out."""

BACKLOG = 1024
"""So many connections may wait to be accepted. The kernel drops the next one, whose client tries again a second later:
with libzmq's own 100, a few hundred at once held everybody up."""

_STARTING = threading.Lock()


@dataclass(frozen=True)
class Incoming:
    """One message: where it came from, the sender's key (z85; empty without CURVE), and its frames."""

    routing_id: bytes
    key: str
    frames: list[bytes]


class Router:
    """A bound ROUTER socket in a context of its own, as two authenticators in one context collide.

    Parameters
    ----------
    endpoint : str
        Where to bind; port 0 is any.
    key : KeyPair or None
        The server's key; None switches CURVE off, which only tests do.
    allowed : AllowList
        Whom to let in.
    self_test : bool
        Whether to try a stranger's key first.
    max_unread_nbytes : int
        How much may wait for a connection that does not read (in bytes).

    Attributes
    ----------
    unread : Unread
        How much waits for whom.

    Raises
    ------
    BrokerUnreachable
        If the endpoint cannot be bound.
    AuthenticationError
        If a stranger's key was let in by the self-test.
    SegmentSpaceError
        If there are too few open files, or too little address space.
    """

    def __init__(
        self,
        endpoint: str,
        key: KeyPair | None,
        allowed: AllowList,
        *,
        self_test: bool = True,
        max_unread_nbytes: int = MAX_UNREAD_NBYTES,
    ) -> None:
        require_room()
        # pyzmq's thread that tells when libzmq has let go of a message takes open files: now, while there is room.
        with _STARTING:
            if not collector.is_alive():
                collector.start()
        self.unread = Unread(max_unread_nbytes)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._authenticator: ThreadAuthenticator | None = None
        self._credentials = _Credentials(allowed)
        self._socket = self._context.socket(zmq.ROUTER)
        try:
            self._configure(key)
            self.endpoint = self._bind(endpoint)
            if key is not None and self_test:
                self._refuse_a_stranger(key)
                self._credentials.rejected = 0
        except BaseException:
            self.close()
            raise

    def _configure(self, key: KeyPair | None) -> None:
        socket = self._socket
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_NBYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.BACKLOG, BACKLOG)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
        if key is None:
            return
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain=DOMAIN, credentials_provider=self._credentials)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without it a dead authenticator lets everybody in
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())

    def _bind(self, endpoint: str) -> str:
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EINVAL, zmq.EPROTONOSUPPORT, errno.ENODEV):
                raise InvalidArgument(
                    f"{endpoint!r} is not an address to listen on, such as tcp://127.0.0.1:5570"
                ) from None
            raise BrokerUnreachable(f"cannot listen on {endpoint}: {error}", endpoint=endpoint) from None
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _refuse_a_stranger(self, key: KeyPair) -> None:
        """Knock with a random key, and expect to be sent away."""
        endpoint = self.endpoint.replace("://0.0.0.0:", "://127.0.0.1:")
        with Dealer(endpoint, key.public, KeyPair.random()) as stranger:
            try:
                connected = stranger.handshake(2.0)
            except AuthenticationError:
                return
            except BrokerUnreachable:
                connected = False
        require_room()  # where no connection can be accepted, this says so
        raise AuthenticationError(
            "the broker's self-test failed: a stranger's key was "
            + ("let in" if connected else "not refused in time")
            + "; it does not start"
        )

    @property
    def rejected(self) -> int:
        """How many handshakes the allow-list has ended since the start."""
        return self._credentials.rejected

    def poll(self, seconds: float, wake: int) -> None:
        """Wait until a message or the descriptor `wake` needs attention."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(wake, zmq.POLLIN)
        poller.poll(max(0, round(seconds * 1000)))

    def receive(self) -> Incoming | None:
        """Return the next message, or None if there is none now."""
        try:
            parts: Any = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        try:
            key = str(parts[-1].get("User-Id"))
        except zmq.ZMQError:
            key = ""
        return Incoming(parts[0].bytes, key, [part.bytes for part in parts[1:]])

    def send(self, routing_id: bytes, frames: list[bytes], key: str = "") -> None:
        """Send to one connection of a client's; a peer that is gone, or does not read, is not waited for.

        A long message to a connection that has left too much unread is dropped, and counted.
        """
        try:
            if len(frames[-1]) < LONG:
                self._socket.send_multipart([routing_id, *frames], zmq.NOBLOCK)
            elif self.unread.excess(routing_id, key):
                self.unread.dropped += 1
            else:
                self._socket.send_multipart([routing_id, *frames[:-1]], zmq.NOBLOCK | zmq.SNDMORE)
                sent = self._socket.send(frames[-1], zmq.NOBLOCK, copy=False, track=True)
                self.unread.add(routing_id, key, sent, len(frames[-1]))
        except zmq.ZMQError:
            return

    def close(self) -> None:
        """Unbind and stop the authenticator. Twice is harmless."""
        if self._context.closed:
            return
        self._socket.close(0)
        if self._authenticator is not None:
            if not self._authenticator.is_alive():
                # An interrupt kept it from starting, and nobody would take its last word.
                self._authenticator.pipe = None  # type: ignore[assignment]
            self._authenticator.stop()
        self._context.destroy(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Credentials:
    """What pyzmq's authenticator asks; it hands over the client's raw 32-byte key as z85 bytes."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed
        self.rejected = 0  # counted in the authenticator's thread only

    def callback(self, _domain: str, key: bytes) -> bool:
        known = key.decode("ascii", "replace") in self._allowed
        self.rejected += not known
        return known
