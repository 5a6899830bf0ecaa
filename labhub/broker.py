"""The directory process of all channels."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from labhub import liveness
from labhub.bound import Bound
from labhub.errors import BrokerUnreachable, ClosedError, InvalidArgument, SegmentSpaceError, TimeoutExpired
from labhub.logs import event, get_logger
from labhub.protocol.access import Access
from labhub.protocol.broker_state import BrokerState, Outgoing, Peer
from labhub.protocol.registry import ChannelRegistry, Registration
from labhub.settings import SettingsFile
from labhub.tasks import Task, contained, report, words
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, KeyPair, load_key
from labhub.transport.enrolled import AllowList
from labhub.transport.room import require_room, wake_descriptor
from labhub.transport.router import Router
from labhub.transport.unread import MAX_UNREAD_NBYTES

__all__ = ["DEFAULT_ENDPOINT", "BrokerConfig", "BrokerService", "ChannelRegistry", "Registration"]

logger = get_logger(__name__)

DEFAULT_ENDPOINT = "tcp://127.0.0.1:5570"
TICK = 1.0
"""How often the broker looks after its channels (in seconds)."""
BURST = 1000
"""Most messages that are answered before it looks at the clock again."""


@dataclass
class BrokerConfig:
    """How a broker serves.

    Attributes
    ----------
    endpoint : str
        Where to listen; port 0 is any. If the default port is taken, any other is used.
    use_curve : bool
        Encrypt and authenticate. False is for tests.
    on_ready : callable, optional
        Called as ``on_ready(endpoint, public_key)`` once it listens.
    on_tick : callable, optional
        Called about once a second by the thread that serves, while it does.
    allow : {"user", "any"}
        Let in this user's own key and the enrolled ones, or everybody.
    max_channels_per_key, max_watches_per_key, max_consumers_per_key : int
        How many channels one client key may register, and how many watches and registered consumers it may have.
    max_unread_nbytes : int
        How much may wait for a connection that does not read, before it gets no more long answers (in bytes).
    settings : SettingsFile, optional
        Whose access rules hold, and are followed when the file changes; its other settings are not looked at here.
    on_settings : callable, optional
        Called with why the settings file is not believed, when that changes; with an empty text once it is.
    """

    endpoint: str = DEFAULT_ENDPOINT
    use_curve: bool = True
    on_ready: Callable[[str, str], object] | None = None
    on_tick: Callable[[], object] | None = None
    allow: Literal["user", "any"] = "user"
    max_channels_per_key: int = 20_000
    max_watches_per_key: int = 256
    max_consumers_per_key: int = 20_000
    max_unread_nbytes: int = MAX_UNREAD_NBYTES
    settings: SettingsFile | None = None
    on_settings: Callable[[str], object] | None = None


@dataclass(frozen=True)
class BrokerView:
    """A broker at one moment.

    Attributes
    ----------
    channels : list of Registration
        Live ones: to be read, at once, and never changed.
    numbers : dict of str to float
        As `labhub.Messenger.query_metrics` gives them.
    """

    channels: list[Registration]
    numbers: dict[str, float]


class BrokerService(Bound):
    """A broker. As a context manager it serves from a background thread; `run` serves in the foreground.

    Parameters
    ----------
    config : BrokerConfig, optional
        How to serve.

    Attributes
    ----------
    endpoint : str
        Where it listens, once it does.
    public_key : str
        Its public key (z85); empty without CURVE.

    Examples
    --------
    >>> with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")) as broker, labhub.Messenger() as messenger:
    ...     messenger.connect(broker.endpoint, broker.public_key)
    True
    """

    def __init__(self, config: BrokerConfig | None = None) -> None:
        self.config = config or BrokerConfig()
        self.endpoint = ""
        self.public_key = ""
        self._thread: Task | None = None
        self._router: Router | None = None
        self._stop = threading.Event()
        # So that nobody writes to a descriptor that was closed, and is perhaps another file's; signals come in between.
        self._gate = threading.RLock()
        self._wake = -1  # while it does not listen
        self._state: BrokerState | None = None
        self._access = Access()
        self._looks: queue.SimpleQueue[Future[BrokerView]] = queue.SimpleQueue()
        self._reload = False
        self._settings_reads = 0
        self._out_of_files = False
        self._started_at = 0.0

    def start(self) -> Self:
        """Listen, and serve from a background thread.

        Raises
        ------
        BrokerUnreachable
            If the endpoint cannot be bound.
        AuthenticationError
            If a key file is unusable, or the self-test lets a stranger in.
        InvalidArgument
            If the configuration makes no sense, or the broker was started before.
        SegmentSpaceError
            If there are too few open files, or too little address space.
        """
        self._listen()
        self._thread = Task(self._serve, "labhub-broker")
        self._thread.start()
        return self

    def run(self) -> None:
        """Listen, and serve in this thread until `stop` is called or Ctrl-C is pressed; raises as `start`."""
        self._listen()
        self._serve()

    def stop(self) -> None:
        """Stop serving, and remove what dead producers left. Twice is harmless."""
        self._stop.set()
        self._wake_up()
        if self._thread is not None:
            self._thread.wait()

    def reload(self) -> None:
        """Read the settings file again now, be it changed or not; for a signal handler, too."""
        self._reload = True
        self._wake_up()

    def _wake_up(self) -> bool:
        """Let the serving thread look at what was asked of it; whether there still is a broker to wake."""
        with self._gate:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
            return self._wake >= 0

    def look(self, timeout: float = 2.0) -> BrokerView:
        """Return what it knows, as its own thread sees it between two messages; for any other thread.

        Raises
        ------
        TimeoutExpired
            It did not come to it in time (in seconds).
        ClosedError
            It does not serve.
        """
        future: Future[BrokerView] = Future()
        self._looks.put(future)
        if not self._wake_up():
            raise ClosedError("this broker does not serve" + (f": {words(self.error)}" if self.error else ""))
        try:
            return future.result(timeout)
        except TimeoutError:
            raise TimeoutExpired(f"the broker did not come to it within {timeout:g} s") from None

    @property
    def error(self) -> BaseException | None:
        """What has ended the background thread that serves; None if nothing did."""
        return None if self._thread is None else self._thread.error

    @property
    def uptime(self) -> float:
        """For how long it has been listening (in seconds)."""
        return time.monotonic() - self._started_at if self.endpoint else 0.0

    def _listen(self) -> None:
        if self.endpoint or self._stop.is_set():
            raise InvalidArgument("this BrokerService was started before; make a new one")
        config = self.config
        own = load_key(CLIENT_KEY).public if config.use_curve else ""
        allowed = AllowList(own, anybody=config.allow == "any" or not config.use_curve)
        self._access = Access(own, allowed.name_of)
        if config.settings is not None:
            self._access.rules = config.settings.current.access
        if config.allow not in ("user", "any"):
            raise InvalidArgument(f"allow is 'user' or 'any', not {config.allow!r}")
        if not _is_local(config.endpoint) and config.allow != "any" and not allowed.enrolled():
            raise InvalidArgument(
                f"{config.endpoint} can be reached from other machines, and no client key is enrolled; enroll one "
                "first, or listen on tcp://127.0.0.1:5570"
            )
        key = load_key(SERVER_KEY) if config.use_curve else None
        self._wake = wake_descriptor()
        try:
            self._open(key, allowed)
        except BaseException:
            self._close()
            raise

    def _open(self, key: KeyPair | None, allowed: AllowList) -> None:
        config = self.config
        test, unread = config.allow != "any", config.max_unread_nbytes
        router = self._bind(lambda at: Router(at, key, allowed, self_test=test, max_unread_nbytes=unread))
        self._router = router
        self._state = BrokerState(
            probe=_judge,
            bury=_bury,
            allowed=allowed.__contains__,
            access=self._access,
            max_channels_per_key=config.max_channels_per_key,
            max_watches_per_key=config.max_watches_per_key,
            max_consumers_per_key=config.max_consumers_per_key,
            unread=lambda peer: router.unread.excess(peer.routing_id, peer.key),
            started_at=time.monotonic(),
            others=self._numbers,
        )
        self.endpoint, self.public_key = self._router.endpoint, key.public if key else ""
        self._started_at = time.monotonic()
        facts = event("broker_listening", endpoint=self.endpoint, public_key=self.public_key, pid=os.getpid())
        logger.info("listening on %s", self.endpoint, extra=facts)
        if config.on_ready is not None:
            config.on_ready(self.endpoint, self.public_key)

    def _close(self) -> None:
        if self._router is not None:
            self._router.close()
        if self._state is not None:
            self._state.close(time.monotonic())
        with self._gate:
            os.close(self._wake)
            self._wake = -1

    def _bind(self, bind: Callable[[str], Router]) -> Router:
        try:
            return bind(self.config.endpoint)
        except BrokerUnreachable:
            if self.config.endpoint != DEFAULT_ENDPOINT:
                raise
            return bind("tcp://127.0.0.1:0")

    def _serve(self) -> None:
        assert self._router is not None  # _listen comes first
        assert self._state is not None
        router, state = self._router, self._state
        next_tick = time.monotonic()
        try:
            while not self._stop.is_set():
                router.poll(max(0.0, next_tick - time.monotonic()), self._wake)
                self._answer(router, state)
                self._show(state)
                if (now := time.monotonic()) >= next_tick or self._reload:
                    next_tick = now + TICK
                    with contained("labhub-broker", "settings"):
                        self._follow_settings(state)
                    with contained("labhub-broker", "channels"):
                        self._send(router, state.tick(now))
                    router.unread.settle()
                    self._note_room()
                    if self.config.on_tick is not None:
                        with contained("labhub-broker", "tick"):
                            self.config.on_tick()
        finally:
            self._close()
            while not self._looks.empty():
                self._looks.get_nowait().set_exception(ClosedError("this broker was stopped"))
            logger.info("stopped listening on %s", self.endpoint, extra=event("broker_stopped", endpoint=self.endpoint))

    def _show(self, state: BrokerState) -> None:
        """Answer those who wait in `look`."""
        with contextlib.suppress(BlockingIOError):  # woken by a message, or by the clock
            os.eventfd_read(self._wake)
        while not self._looks.empty():
            with contained("labhub-broker", "look"):
                self._looks.get_nowait().set_result(BrokerView(list(state.registry), state.metrics(time.monotonic())))

    def _numbers(self) -> dict[str, float]:
        assert self._router is not None  # nobody asks before it listens
        return {
            "handshakes_rejected": self._router.rejected,
            "answers_dropped": self._router.unread.dropped,
            "unread_nbytes": self._router.unread.nbytes,
            "out_of_files": self._out_of_files,
            "settings_reads": self._settings_reads,
            "settings_refused": bool(self.config.settings and self.config.settings.error),
        }

    def _note_room(self) -> None:
        """Log when open files run out, without which nobody new is served, and when there are some again."""
        try:
            require_room()
        except SegmentSpaceError as error:
            if not self._out_of_files:
                facts = event("broker_out_of_files", reason=str(error))
                logger.error("nobody new can connect: %s", error, extra=facts)
            self._out_of_files = True
            return
        if self._out_of_files:
            logger.info("there are open files again", extra=event("broker_has_files"))
        self._out_of_files = False

    def _follow_settings(self, state: BrokerState) -> None:
        """Let new access rules hold; those of a file that is broken now are left as they were."""
        force, self._reload = self._reload, False
        file = self.config.settings
        if file is None:
            return
        refused_before = file.error
        if not file.refresh(time.monotonic(), force=force):
            return
        self._settings_reads += 1
        if file.error:
            facts = event("settings_refused", path=str(file.path), reason=file.error)
            logger.error("the settings stay as they were: %s", file.error, extra=facts)
        elif file.current.access != self._access.rules:
            self._access.rules = file.current.access
            state.rules_changed()
            logger.info("new access rules hold", extra=event("access_changed", path=str(file.path)))
        if file.error != refused_before and self.config.on_settings is not None:
            self.config.on_settings(file.error)

    def _answer(self, router: Router, state: BrokerState) -> None:
        for _ in range(BURST):
            incoming = router.receive()
            if incoming is None:
                return
            try:
                replies = state.receive(Peer(incoming.routing_id, incoming.key), incoming.frames, time.monotonic())
            except Exception:  # around one request: a reply that cannot be encoded, say, must not end the service
                logger.exception("a request could not be answered", extra=event("request_failed", key=incoming.key))
                continue
            self._send(router, replies)

    @staticmethod
    def _send(router: Router, messages: list[Outgoing]) -> None:
        for out in messages:
            with contained("labhub-broker", "message"):
                router.send(out.routing_id, out.frames, out.key)

    def _instead(self) -> str:
        return "in the other process, labhub.connect() reaches it"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        failed = f", failed: {words(self.error)}" if self.error else ""
        return f"BrokerService({self.endpoint or 'not started'}{failed})"


def _judge(entry: Registration) -> liveness.Verdict:
    """Judge a producer; nothing that one of them has registered ends the judging of the others."""
    try:
        return liveness.judge(entry.shm_name, entry.metadata)
    except Exception as error:  # noqa: BLE001  # around one channel, whose producer then counts by its heartbeats
        report("item_failed", error, thread="labhub-broker", item=entry.channel_name)
        return "unknown"


def _bury(entry: Registration) -> None:
    with contained("labhub-broker", entry.channel_name):
        liveness.bury(entry.shm_name, entry.metadata)


def _is_local(endpoint: str) -> bool:
    if not endpoint.startswith("tcp://"):
        return True  # ipc and inproc do not leave the machine
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
