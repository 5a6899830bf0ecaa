"""The thread behind a Messenger: a socket, a state machine and a queue, with no logic of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from labhub.errors import AuthenticationError, BrokerUnreachable, LabHubError
from labhub.logs import event
from labhub.protocol.client_state import ClientState, Done, Gap, Sink
from labhub.protocol.messages import Event, Message, WatchReq
from labhub.tasks import Task, contained, report, words
from labhub.transport.curve import KeyPair
from labhub.transport.dealer import Dealer
from labhub.transport.room import wake_descriptor

logger = logging.getLogger(__name__)

Status = Literal["connected", "connecting", "disconnected", "unauthorized"]
Resolver = Callable[[], tuple[str, str] | None]

DISCONNECTED = "the connection to the broker was closed; connect() opens another"
LOST = {"connecting": "away", "disconnected": "away", "unauthorized": "refusing this client, or another one"}
SLICE = 0.1
"""How often the worker looks at the clock (in seconds)."""
LOOK_EVERY = 1.0
"""How often the worker has what it was asked to look after looked at (in seconds)."""
RESOLVE_AFTER = 0.5
"""After how long without a connection the worker asks where the broker is now (in seconds)."""
MAX_UNSENT = 1000
"""So many requests are kept for a broker that is away; the oldest are left out first, and time out. What is registered
does not depend on them: it is said again anyway."""


@dataclass(frozen=True)
class Connection:
    """How the connection to the broker does, from this side.

    Attributes
    ----------
    status : {"connected", "connecting", "disconnected", "unauthorized"}
    endpoint : str
        Where the broker is, or was.
    since_s : float
        For how long the status has been that (in seconds).
    reconnects : int
        How often the broker was reached again after it was away.
    registered : tuple of str
        Names of the channels that are kept registered.
    rejected : dict of str to str
        Why the broker refused channels, by their names.
    error : str
        What has ended the thread that speaks to the broker, or what failed in it last, until it works again; else
        empty.
    """

    status: Status
    endpoint: str
    since_s: float
    reconnects: int
    registered: tuple[str, ...]
    rejected: dict[str, str]
    error: str = ""


class Worker:
    """The thread that owns the socket and the state; others hand it work through a queue."""

    def __init__(self, dealer: Dealer, key: KeyPair, resolve: Resolver | None) -> None:
        self._dealer = dealer
        self._key = key
        self._resolve = resolve
        self._place = (dealer.endpoint, dealer.server_key)
        self._state = ClientState()
        self._work: queue.SimpleQueue[Callable[[float], None]] = queue.SimpleQueue()
        self._unsent: deque[list[bytes]] = deque(maxlen=MAX_UNSENT)
        self._handshakes = dealer.handshakes
        self._down_since: float | None = None
        self._trouble = ""
        self.look: Callable[[], None] | None = None
        self._next_look = 0.0
        self._thread = Task(self._run, "labhub-messenger")
        self._seen: tuple[Status, float] = (self.status, time.monotonic())
        self._reached = 1 if self.status == "connected" else 0
        self._stopping = False
        self._wake = wake_descriptor()
        # So that nobody hands work to a worker that has ended; the garbage collector may do so in mid-hand-over.
        self._gate = threading.RLock()
        self._thread.start()

    @property
    def status(self) -> Status:
        """Whether the broker can be reached now."""
        if self._thread.error is not None:
            return "disconnected"
        match self._dealer.link:
            case "unauthorized" | "wrong_server_key":
                return "unauthorized"
            case link:
                return link

    @property
    def connection(self) -> Connection:
        """How the connection does now."""
        status, since = self._seen
        return Connection(
            status,
            self._place[0],
            time.monotonic() - since,
            max(0, self._reached - 1),
            self._state.registered,
            self._state.rejected,
            self._trouble if self._thread.error is None else words(self._thread.error),
        )

    def ask(self, message: Message, timeout: float, done: Done) -> None:
        """Send a request; `done` is called in the worker's thread, with the reply or the error instead of it."""
        self._hand_over(lambda now: self._state.request(message, now, timeout, done), done)

    def watch(self, request: WatchReq, sink: Sink, timeout: float, done: Done) -> None:
        """Begin a watch; `sink`, too, is called in the worker's thread."""

        def told(item: Event | Gap) -> None:
            with contained("labhub-messenger", "watch"):  # the reply, and other watches, still get what is theirs
                sink(item)

        self._hand_over(lambda now: self._state.watch(request, told, now, timeout, done), done)

    def _hand_over(self, frames: Callable[[float], list[bytes]], done: Done) -> None:
        def work(now: float) -> None:
            try:
                self._send(frames(now))
            except LabHubError as error:
                done(error)
            except Exception as error:
                done(BrokerUnreachable(f"the request could not be sent: {words(error)}"))
                raise

        with self._gate:
            if self._stopping:
                why = self._thread.error
                raise BrokerUnreachable(DISCONNECTED if why is None else f"{DISCONNECTED}: {words(why)}")
            self._work.put(work)
            os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Let what was asked leave, end the thread and wait for that."""
        with self._gate:
            self._stopping = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        self._thread.wait()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._dealer.poll(SLICE, self._wake)
                try:
                    self._step(time.monotonic())
                    self._trouble = ""
                except Exception as error:  # noqa: BLE001  # around one look: what it left undone is done at the next
                    self._note(error)
                    time.sleep(SLICE)  # not as fast as possible, should it fail each time
            self._do_work(time.monotonic())  # what was asked before the stop still leaves
        finally:
            with contained("labhub-messenger", "socket"):
                self._dealer.close()
            with contained("labhub-messenger", "pending requests"):
                self._state.fail_all(BrokerUnreachable(DISCONNECTED))
            with self._gate:  # nobody wakes a thread that has ended
                self._stopping = True
                os.close(self._wake)
                self._wake = -1

    def _note(self, error: Exception) -> None:
        self._trouble = words(error)
        report("item_failed", error, thread="labhub-messenger", item=self._place[0])

    def _step(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):  # woken by a message, or by the clock
            os.eventfd_read(self._wake)
        link = self._dealer.update(now)
        self._note_status(now)
        if self._dealer.handshakes > self._handshakes:
            self._handshakes = self._dealer.handshakes
            self._send_all([*self._unsent, *self._state.reconnected(now)], clear=True)
        self._do_work(now)
        while (frames := self._dealer.receive()) is not None:
            with contained("labhub-messenger", "message"):
                self._send_all(self._state.receive(frames, now))
        if self.look is not None and now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            with contained("labhub-messenger", "look"):
                self.look()
        self._send_all(self._state.tick(now, connected=link == "connected"))
        if link == "connected":
            self._down_since = None
        else:
            self._look_elsewhere(now)

    def _note_status(self, now: float) -> None:
        """Remember since when the broker can be reached or not, and log it when that changes."""
        if (status := self.status) == self._seen[0]:
            return
        self._seen = (status, now)
        endpoint = self._place[0]
        if status == "connected":
            self._reached += 1
            logger.info("reached the broker at %s", endpoint, extra=event("broker_reached", endpoint=endpoint))
        else:
            facts = event("broker_lost", endpoint=endpoint, status=status)
            logger.info("the broker at %s is %s; data flows on", endpoint, LOST[status], extra=facts)

    def _do_work(self, now: float) -> None:
        while True:
            try:
                work = self._work.get_nowait()
            except queue.Empty:
                return
            with contained("labhub-messenger", "request"):
                work(now)

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
        if self._resolve is None:
            self._fail_refused()
            return
        if now - self._down_since < RESOLVE_AFTER:
            return
        self._down_since = now
        place = self._place_now()
        if place == self._place:
            self._fail_refused()
        elif place is not None:
            self._move(place)

    def _place_now(self) -> tuple[str, str] | None:
        """Where the broker is by its connection file; None if that says nothing, or cannot be read just now."""
        try:
            return None if self._resolve is None else self._resolve()
        except LabHubError as error:
            logger.warning("cannot follow the broker: %s", error, extra=event("broker_not_followed", reason=str(error)))
            return None

    def _fail_refused(self) -> None:
        """Where a key was refused and there is no other place to ask, end what waits for an answer, saying so.

        What is registered stays noted, for the case that the right broker comes back.
        """
        try:
            self._dealer.require_authentic()
            self._dealer.require_a_word()
        except (AuthenticationError, BrokerUnreachable) as refusal:
            self._state.fail_all(refusal)

    def _move(self, place: tuple[str, str]) -> None:
        logger.info("the broker is now at %s", place[0], extra=event("broker_moved", endpoint=place[0]))
        try:
            dealer = Dealer(*place, self._key)
        except LabHubError as error:
            logger.warning("cannot follow the broker: %s", error, extra=event("broker_not_followed", reason=str(error)))
            return
        self._dealer.close()
        self._dealer, self._place, self._handshakes = dealer, place, 0
