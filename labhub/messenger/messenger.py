"""The client that speaks to the broker."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import ClassVar, Self

from labhub import lifecycle, transport
from labhub.errors import InvalidArgument, LabHubError
from labhub.lifecycle import LifecycleGuard, ModuleDef, make_mod_def_list
from labhub.logs import event
from labhub.messenger.info import ProducerInfo
from labhub.messenger.questions import REPLY_TIMEOUT, Questions, settle
from labhub.messenger.worker import Connection, Resolver, Status, Worker
from labhub.names import check_name
from labhub.protocol.messages import ConsumerDeregReq, ConsumerRegReq, DeregReq, Message, RegReq
from labhub.transport.curve import CLIENT_KEY, KeyPair, load_key
from labhub.transport.dealer import Dealer

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT = 3.0
"""How long `connect` waits for an answer (in seconds)."""


class Messenger(Questions):
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
        super().__init__()
        self._key = key

    @classmethod
    def get_instance(cls) -> Messenger:
        """Return the Messenger of this process; the modules that it needs are started if nobody did."""
        with cls._instance_lock:
            if cls._instance is None or cls._instance._pid != os.getpid():
                modules = (lifecycle, transport)
                cls._guard = LifecycleGuard(make_mod_def_list(*(m.get_lifecycle_module() for m in modules)))
                cls._instance = cls()
            return cls._instance

    def look_after(self, look: Callable[[], None]) -> None:
        """Have something called once a second in the worker's thread, while it is connected; it must not take long."""
        if self._worker is not None:
            self._worker.look = look

    @property
    def status(self) -> Status:
        """Whether the broker can be reached now."""
        return self._worker.status if self._worker is not None else "disconnected"

    @property
    def connection(self) -> Connection | None:
        """How the connection does; None before `connect` and after `disconnect`."""
        return None if self._worker is None else self._worker.connection

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
        BrokerUnreachable
            If connections are made there and nobody says a word, as where the broker has no open files left.
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
        self._worker = Worker(dealer, key, resolve)
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
                facts = event("registration_refused", channel=channel, reason=str(outcome))
                logger.error("channel %s was not registered: %s", channel, outcome, extra=facts)
            settle(future, outcome, None)

        self._connected().ask(request, REPLY_TIMEOUT, done)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def __repr__(self) -> str:
        return f"Messenger({self.status})"


def get_lifecycle_module() -> ModuleDef:
    """Return the data exchange hub: the Messenger of this process, which needs crypto."""
    return ModuleDef("data_exchange_hub", depends=("crypto",), stop=_stop_instance)


def _stop_instance() -> None:
    instance = Messenger._instance
    if instance is not None:
        instance.disconnect()
