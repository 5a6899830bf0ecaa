"""The client that speaks to the broker."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar

from labhub import lifecycle, transport
from labhub.errors import BrokerUnreachable, ChannelNotFound, ForkedProcessError, InvalidArgument, LabHubError
from labhub.lifecycle import LifecycleGuard, ModuleDef, make_mod_def_list
from labhub.names import check_name
from labhub.protocol.client_state import ClientState
from labhub.protocol.messages import (
    ChannelEntry,
    ConsumerDeregReq,
    ConsumerRegReq,
    DeregReq,
    DiscAck,
    DiscReq,
    ListAck,
    ListReq,
    Message,
    RegReq,
)
from labhub.transport.curve import CLIENT_KEY, KeyPair, load_key
from labhub.transport.dealer import Dealer

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

Status = Literal["connected", "connecting", "disconnected", "unauthorized"]
Resolver = Callable[[], tuple[str, str] | None]

CONNECT_TIMEOUT = 3.0
"""How long `connect` waits for an answer (in seconds)."""
REPLY_TIMEOUT = 5.0
"""How long a request waits for its reply unless told otherwise (in seconds)."""
SLICE = 0.1
"""How often the worker looks at the clock (in seconds)."""
RESOLVE_AFTER = 0.5
"""After how long without a connection the worker asks where the broker is now (in seconds)."""


@dataclass(frozen=True)
class ProducerInfo:
    """What a producer tells the broker.

    Attributes
    ----------
    shm_name : str
        Name of the segment.
    producer_pid : int
    schema_hash : bytes
        32 bytes; all zero means undeclared.
    schema_version : int
    metadata : mapping
        Plain JSON values.
    """

    shm_name: str
    producer_pid: int
    schema_hash: bytes
    schema_version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConsumerInfo:
    """What the broker tells a consumer; the fields are those of `ProducerInfo`."""

    shm_name: str
    schema_hash: bytes
    schema_version: int
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Messenger:
    """Speaks to one broker from a worker thread of its own; any thread may call it.

    It registers again by itself whatever it has registered when the broker comes back, and sends heartbeats meanwhile.

    Parameters
    ----------
    key : KeyPair, optional
        The client's CURVE key; the user's own unless given.
    """

    _instance: ClassVar[Messenger | None] = None
    _instance_lock: ClassVar[threading.Lock] = threading.Lock()
    _guard: ClassVar[LifecycleGuard | None] = None

    def __init__(self, key: KeyPair | None = None) -> None:
        self._key = key
        self._pid = os.getpid()
        self._worker: _Worker | None = None

    @classmethod
    def get_instance(cls) -> Messenger:
        """Return the Messenger of this process; the modules that it needs are started if nobody did."""
        with cls._instance_lock:
            if cls._instance is None or cls._instance._pid != os.getpid():
                modules = (lifecycle, transport)
                cls._guard = LifecycleGuard(make_mod_def_list(*(m.get_lifecycle_module() for m in modules)))
                cls._instance = cls()
            return cls._instance

    @property
    def status(self) -> Status:
        """Whether the broker can be reached now."""
        return self._worker.status if self._worker is not None else "disconnected"

    def connect(
        self, endpoint: str, server_pubkey: str, *, timeout: float = CONNECT_TIMEOUT, resolve: Resolver | None = None
    ) -> bool:
        """Connect to a broker.

        Parameters
        ----------
        endpoint : str
            Where it listens, such as ``tcp://127.0.0.1:5570``.
        server_pubkey : str
            Its public key (40 characters of z85); empty for a broker without CURVE.
        timeout : float
            How long to wait for an answer (in seconds).
        resolve : callable, optional
            Returns the (endpoint, key) of the broker, or None; asked while it cannot be reached.

        Returns
        -------
        bool
            False if nobody answers there.

        Raises
        ------
        AuthenticationError
            If the broker has another key, or refuses this client's.
        InvalidArgument
            If the endpoint or the key cannot be one.
        """
        self._check_fork()
        self.disconnect()
        key = self._key or (load_key(CLIENT_KEY) if server_pubkey else KeyPair("", ""))
        dealer = Dealer(endpoint, server_pubkey, key)
        try:
            if not dealer.handshake(timeout):
                dealer.close()
                return False
        except BaseException:
            dealer.close()
            raise
        self._worker = _Worker(dealer, key, resolve)
        return True

    def disconnect(self) -> None:
        """Stop speaking to the broker. What is registered stays registered there. Twice is harmless."""
        worker, self._worker = self._worker, None
        if worker is not None and self._pid == os.getpid():
            worker.stop()

    def register_producer(self, channel: str, info: ProducerInfo) -> Future[None]:
        """Register a channel. Nobody has to wait for the result: a refusal is logged, too.

        Returns
        -------
        Future of None
            Raises, where it is looked at, `SchemaMismatch`, `ChannelBusy`, `BrokerUnreachable` or `ProtocolError`.

        Raises
        ------
        InvalidArgument
            If the schema hash is not 32 bytes long.
        BrokerUnreachable
            If this Messenger is not connected.
        """
        if len(info.schema_hash) != 32:
            raise InvalidArgument(
                f"schema_hash is 32 bytes, not {len(info.schema_hash)}; 32 zero bytes mean undeclared"
            )
        request = RegReq(
            channel_name=check_name(channel),
            shm_name=check_name(info.shm_name, "segment"),
            schema_hash=bytes(info.schema_hash).hex(),
            schema_version=info.schema_version,
            producer_pid=info.producer_pid,
            producer_hostname=os.uname().nodename,
            metadata=dict(info.metadata),
        )
        future: Future[None] = Future()

        def done(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, LabHubError):
                logger.error("channel %s was not registered: %s", channel, outcome)
                future.set_exception(outcome)
            else:
                future.set_result(None)

        self._ask(request, REPLY_TIMEOUT, done)
        return future

    def deregister_producer(self, channel: str, producer_pid: int | None = None) -> Future[None]:
        """Take a channel back; `producer_pid` is that of this process unless given.

        Returns
        -------
        Future of None
            Raises, where it is looked at, `ChannelNotFound` if it was not registered by this client and pid.
        """
        pid = os.getpid() if producer_pid is None else producer_pid
        return self._tell(DeregReq(channel_name=check_name(channel), producer_pid=pid))

    def register_consumer(self, channel: str) -> Future[None]:
        """Tell the broker that this process reads a channel; for its tools only."""
        return self._tell(ConsumerRegReq(channel_name=check_name(channel), consumer_pid=os.getpid()))

    def deregister_consumer(self, channel: str) -> Future[None]:
        """Tell the broker that this process no longer reads a channel."""
        return self._tell(ConsumerDeregReq(channel_name=check_name(channel), consumer_pid=os.getpid()))

    def discover_producer(self, channel: str, timeout_ms: int = 5000) -> ConsumerInfo | None:
        """Ask where a channel is.

        Parameters
        ----------
        channel : str
        timeout_ms : int
            How long to wait for the broker (in milliseconds).

        Returns
        -------
        ConsumerInfo or None
            None if the channel is unknown, or the broker does not answer in time.
        """
        request = DiscReq(channel_name=check_name(channel))
        try:
            reply = self._call(request, DiscAck, timeout_ms / 1000)
        except (ChannelNotFound, BrokerUnreachable):
            if self._worker is None:
                raise
            return None
        return ConsumerInfo(reply.shm_name, bytes.fromhex(reply.schema_hash), reply.schema_version, reply.metadata)

    def list_channels(self, pattern: str = "*", timeout: float = REPLY_TIMEOUT) -> list[ChannelEntry]:
        """Return the channels whose names match a shell pattern, in the order of their names.

        Raises
        ------
        BrokerUnreachable
            If the broker does not answer within `timeout` (in seconds).
        """
        found: list[ChannelEntry] = []
        offset = 0
        while offset >= 0:
            page = self._call(ListReq(pattern=pattern, offset=offset), ListAck, timeout)
            found += page.channels
            offset = page.next_offset
        return found

    def query(self, channel: str, timeout: float = REPLY_TIMEOUT) -> ChannelEntry | None:
        """Return everything that the broker knows of one channel, or None; raises as `list_channels`."""
        page = self._call(ListReq(pattern=channel), ListAck, timeout)
        return next((c for c in page.channels if c.channel_name == channel), None)

    def _tell(self, message: Message) -> Future[None]:
        future: Future[None] = Future()

        def done(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, LabHubError):
                future.set_exception(outcome)
            else:
                future.set_result(None)

        self._ask(message, REPLY_TIMEOUT, done)
        return future

    def _call(self, message: Message, reply: type[M], timeout: float) -> M:
        future: Future[M] = Future()

        def done(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, reply):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)  # type: ignore[arg-type]  # replies are paired: only errors are left

        self._ask(message, timeout, done)
        try:
            return future.result(timeout + 1.0)
        except FutureTimeout:
            raise BrokerUnreachable(f"the broker did not answer within {timeout:g} s") from None

    def _ask(self, message: Message, timeout: float, done: Callable[[Message | LabHubError], None]) -> None:
        self._check_fork()
        if self._worker is None:
            raise BrokerUnreachable("this Messenger is not connected to a broker; call connect() first")
        self._worker.ask(message, timeout, done)

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            raise ForkedProcessError("this Messenger belongs to the parent process; make a new one after the fork")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"Messenger({self.status})"


class _Worker:
    """The thread that owns the socket and the state; others hand it work through a queue."""

    def __init__(self, dealer: Dealer, key: KeyPair, resolve: Resolver | None) -> None:
        self._dealer = dealer
        self._key = key
        self._resolve = resolve
        self._place = (dealer.endpoint, dealer.server_key)
        self._state = ClientState()
        self._work: queue.SimpleQueue[Callable[[float], None]] = queue.SimpleQueue()
        self._unsent: deque[list[bytes]] = deque()
        self._handshakes = dealer.handshakes
        self._down_since: float | None = None
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._gate = threading.Lock()  # so that nobody hands work to a worker that has ended
        self._thread = threading.Thread(target=self._run, name="labhub-messenger", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        match self._dealer.link:
            case "unauthorized" | "wrong_server_key":
                return "unauthorized"
            case link:
                return link

    def ask(self, message: Message, timeout: float, done: Callable[[Message | LabHubError], None]) -> None:
        def work(now: float) -> None:
            try:
                self._send(self._state.request(message, now, timeout, done))
            except LabHubError as error:
                done(error)

        with self._gate:
            if self._stopping:
                raise BrokerUnreachable("this Messenger was disconnected")
            self._work.put(work)
            os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        with self._gate:
            self._stopping = True
            os.eventfd_write(self._wake, 1)
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._dealer.poll(SLICE, self._wake)
                self._step(time.monotonic())
            self._do_work(time.monotonic())  # what was asked before the stop still leaves
        finally:
            self._dealer.close()
            self._state.fail_all(BrokerUnreachable("this Messenger was disconnected"))
            os.close(self._wake)

    def _step(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):  # woken by a message, or by the clock
            os.eventfd_read(self._wake)
        link = self._dealer.update(now)
        if self._dealer.handshakes > self._handshakes:
            self._handshakes = self._dealer.handshakes
            self._send_all([*self._unsent, *self._state.reconnected(now)], clear=True)
        self._do_work(now)
        while (frames := self._dealer.receive()) is not None:
            self._send_all(self._state.receive(frames, now))
        self._send_all(self._state.tick(now))
        if link == "connected":
            self._down_since = None
        else:
            self._look_elsewhere(now)

    def _do_work(self, now: float) -> None:
        while True:
            try:
                self._work.get_nowait()(now)
            except queue.Empty:
                return

    def _send_all(self, messages: list[list[bytes]], *, clear: bool = False) -> None:
        if clear:
            self._unsent.clear()
        for frames in messages:
            self._send(frames)

    def _send(self, frames: list[bytes]) -> None:
        if not self._dealer.send(frames):
            self._unsent.append(frames)  # sent with the next handshake; replies that come too late are dropped

    def _look_elsewhere(self, now: float) -> None:
        """Follow a broker that came back at another endpoint, or with another key."""
        if self._down_since is None:
            self._down_since = now
        if self._resolve is None or now - self._down_since < RESOLVE_AFTER:
            return
        self._down_since = now
        place = self._resolve()
        if place is None or place == self._place:
            return
        logger.info("the broker is now at %s", place[0])
        try:
            dealer = Dealer(*place, self._key)
        except LabHubError as error:
            logger.warning("cannot follow the broker: %s", error)
            return
        self._dealer.close()
        self._dealer, self._place, self._handshakes = dealer, place, 0


def get_lifecycle_module() -> ModuleDef:
    """Return the data exchange hub: the Messenger of this process, which needs crypto."""
    return ModuleDef("data_exchange_hub", depends=("crypto",), stop=_stop_instance)


def _stop_instance() -> None:
    instance = Messenger._instance
    if instance is not None:
        instance.disconnect()
