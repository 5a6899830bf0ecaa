"""Channels of other machines, brought to this one."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

import zenoh

from labhub.bridging import wire
from labhub.bridging.clocks import Clocks
from labhub.bridging.copies import Copy
from labhub.bridging.network import query
from labhub.bridging.status import ImportStatus
from labhub.bridging.wire import Address, Offer
from labhub.errors import BridgeError, ExportConflict, LabHubError, ProtocolError
from labhub.hub import Hub
from labhub.logs import event, get_logger
from labhub.schema import Schema
from labhub.tasks import Task, contained, report, words

logger = get_logger(__name__)

INBOX = 32
"""Messages that wait to be written, before the network is made to wait."""
CLOCK_INTERVAL, MUTE_INTERVAL = 60.0, 5.0
"""How often the clock of the other machine is looked at: it drifts; and how soon if it did not answer (in seconds)."""
ANSWER_TIMEOUT = 5.0
"""How long a broker may take to note what a clock says (in seconds)."""
RETRY = 0.5
"""How often it is asked again for what was refused or not answered (in seconds)."""

Word = Literal["token", "gone", "replaced", "again"]


class Import:
    """One channel of another machine, as a local one.

    Two threads: one takes the slots, the other the news of the export, and tries again what failed.

    Parameters
    ----------
    hub : Hub
        Where it appears.
    session : zenoh.Session
    address : Address
        Whose it is.
    identity : str
        Of this hub: what has come through it once is not taken again.
    clocks : Clocks
    claim : callable
        Takes the name of the channel for an address, or raises `ExportConflict`.
    """

    def __init__(
        self,
        hub: Hub,
        session: zenoh.Session,
        address: Address,
        identity: str,
        clocks: Clocks,
        claim: Callable[[Address], None],
    ) -> None:
        self.address = address
        self._hub = hub
        self._session = session
        self._identity = identity
        self._clocks = clocks
        self._claim = claim
        self._copy: Copy | None = None
        self._known: tuple[bytes, int] | None = None  # of the copy that was before: its instance, and what came next
        self._schema: Schema | None = None
        self._offer: Offer | None = None
        self._finished = ""  # the instance whose end has come
        self._tokens: set[str] = set()
        self._state, self._detail = "waiting", ""
        self._received = 0
        self._lost = 0
        self._next_look = 0.0
        self._news: queue.SimpleQueue[tuple[Word, str]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # one thing at a time
        self._closing = threading.Event()
        # Bounded: while the copy's readers hold it up, Zenoh's thread waits here, and so does the network.
        self._subscriber = session.declare_subscriber(address.data, zenoh.handlers.FifoChannel(INBOX))
        self._token = session.liveliness().declare_token(address.imported(identity))
        self._threads = [
            Task(self._receive, f"import {address}"),
            Task(self._listen, f"hear of {address}"),
        ]
        for thread in self._threads:
            thread.start()

    def tell(self, word: Word, run: str) -> None:
        """Tell it that a run of the export is there, or is not any more, or that another machine is now what it was."""
        self._news.put((word, run))

    @property
    def status(self) -> ImportStatus:
        """How it does."""
        copy, offset = self._copy, self._clocks.known(self.address)
        ended = [words(thread.error) for thread in self._threads if thread.error is not None]
        return ImportStatus(
            self.address.site,
            self.address.channel,
            "failed" if ended else self._state,
            ended[0] if ended else self._detail,
            self._received,
            self._lost + (0 if copy is None else copy.lost),
            None if offset is None else offset.offset_ns,
            None if offset is None else offset.round_trip_ns // 2,
        )

    # ---------------------------------------------------------------------------------------------------- its threads

    def _receive(self) -> None:
        for sample in self._subscriber:  # until it is undeclared
            with self._lock:
                self._try(partial(self._take, sample))

    def _listen(self) -> None:
        """Take the news, and try again what failed."""
        while not self._closing.is_set():
            try:
                word, run = self._news.get(timeout=RETRY)
            except queue.Empty:
                word, run = "again", ""
            with self._lock:
                self._try(partial(self._heard, word, run))
            if time.monotonic() >= self._next_look and self._state == "receiving":
                with contained(threading.current_thread().name, "clock"):
                    self._look_at_clock()

    def _look_at_clock(self) -> None:
        """Measure the clock there once more, and tell the broker; meanwhile slots are taken."""
        copy, offset = self._copy, self._clocks.offset(self.address)
        self._next_look = time.monotonic() + (MUTE_INTERVAL if offset is None else CLOCK_INTERVAL)
        if copy is None or offset is None:
            return
        before = copy.clock
        try:
            with self._lock:  # while it is registered
                answer = copy.set_clock(offset) if copy is self._copy else None
            if answer is not None:
                answer.result(ANSWER_TIMEOUT)
        except (LabHubError, TimeoutError):
            copy.clock = before  # it is told the next time

    def _heard(self, word: Word, run: str) -> None:
        match word:
            case "again" if self._tokens and self._state not in ("receiving", "ended"):
                self._agree()
            case "token":
                self._tokens.add(run)
                self._agree()
            case "gone":
                self._tokens.discard(run)
                if not self._tokens and self._state != "ended":
                    self._say("cut", "the other side cannot be reached")
            case "replaced" if not self._tokens:
                self._end()
                self._say("ended", "another machine has taken its place")

    def _try(self, step: Callable[[], None]) -> None:
        """Do something that may fail: then the state says why, and it is tried again."""
        try:
            step()
        except ExportConflict as error:
            self._say("conflict", str(error))
        except Exception as error:  # noqa: BLE001  # around one step: the next one may do better
            foreseen = isinstance(error, (LabHubError, OSError, zenoh.ZError))
            why = " ".join(str(error).split()) if foreseen else words(error)
            if not foreseen and self._detail != why:
                report("item_failed", error, thread=threading.current_thread().name, item=str(self.address))
            self._say("refused", why)

    def _say(self, state: str, detail: str = "") -> None:
        if (state, detail) != (self._state, self._detail) and state in (
            "refused",
            "conflict",
            "schema changed",
            "loop",
        ):
            facts = event("import_trouble", channel=str(self.address), state=state, reason=detail)
            logger.warning("import of %s: %s: %s", self.address, state, detail, extra=facts)
        self._state, self._detail = state, detail

    def _agree(self) -> None:
        """Ask what the channel is, and where it goes on; make the local one, or go on with it."""
        copy = self._copy
        known = self._known if copy is None else (copy.instance, copy.next_seq)
        where = {} if known is None else {"instance": known[0].hex(), "next": str(known[1])}
        if self._offer is not None and self._offer.run in self._tokens:
            where["run"] = self._offer.run
        try:
            answer = query(self._session, self.address.offer, where)
        except BridgeError as refusal:
            self._say("waiting", f"the other side says: {refusal}")
            return
        if answer is None:
            self._say("waiting", "the other side does not answer")
            return
        offer = wire.decode_offer(answer)
        if self._identity in offer.path:
            self._say("loop", "this channel comes from here")
            return
        if offer.instance == self._finished:  # it was asked just before it begins to read the next one
            self._say("waiting", "all of it is here; the other side has not begun the next one yet")
            return
        self._claim(self.address)
        changed = ""
        if copy is None or copy.instance.hex() != offer.instance:
            changed = self._replace(offer)
        elif offer.resume > copy.next_seq:
            copy.lose_until(offer.resume)
        self._offer = offer
        self._say("receiving", changed)

    def _replace(self, offer: Offer) -> str:
        """Make the local channel anew; what has changed in its schema, if anything."""
        self._end()
        offset = self._clocks.offset(self.address)
        copy = self._copy = Copy(self._hub, self.address, offer, offset)
        self._next_look = time.monotonic() + (MUTE_INTERVAL if offset is None else CLOCK_INTERVAL)
        before, self._schema = self._schema or copy.schema, copy.schema
        if not (lines := before.difference(copy.schema)):
            return ""
        facts = event("import_schema_changed", channel=str(self.address), differences=lines)
        logger.warning("import of %s: its schema has changed: %s", self.address, "; ".join(lines), extra=facts)
        return f"its schema has changed: {'; '.join(lines)}"

    def _take(self, sample: zenoh.Sample) -> None:
        copy, offer = self._copy, self._offer
        attachment = b"" if sample.attachment is None else sample.attachment
        head = wire.decode(attachment, b"", None)
        if offer is not None and head.run != offer.run and offer.run in self._tokens:
            return  # of a second bridge on the same hub, which exports the same
        if head.message.end and self._known == (head.message.instance, head.message.first_seq):
            return  # it has ended here, too
        if copy is None or offer is None or (head.run, head.message.instance) != (offer.run, copy.instance):
            self._agree()
            copy, offer = self._copy, self._offer
        if copy is None or offer is None or head.message.instance != copy.instance:
            return  # of an incarnation that is over, or of one that was refused
        if head.generation < offer.generation and head.run == offer.run:
            return  # it was on its way when we asked for an earlier one
        if head.follows > copy.next_seq and offer.lossless:
            self._agree()  # it was lost on the way, and perhaps it can be sent again
            if self._copy is not copy or self._offer is None or head.generation < self._offer.generation:
                return
        if head.message.first_seq > copy.next_seq + wire.MAX_GAP:
            raise ProtocolError(f"seq {head.message.first_seq} after {copy.next_seq}")
        message = wire.decode(attachment, sample.payload, copy.schema.slot_nbytes).message
        if message.end:
            copy.lose_until(message.first_seq)
            self._end()
            self._finished = copy.instance.hex()
            self._say("ended")
            return
        self._received += copy.write(message)
        if self._state != "receiving":
            self._say("receiving")

    def _end(self) -> None:
        """End the local channel; its readers get what is left."""
        if (copy := self._copy) is not None:
            self._lost += copy.lost
            self._known = copy.instance, copy.next_seq
            self._copy = self._offer = None
            copy.close()

    def close(self) -> None:
        """End it; the local channel ends with it."""
        self._closing.set()
        with contextlib.suppress(zenoh.ZError):
            self._subscriber.undeclare()
            self._token.undeclare()
        self.tell("again", "")  # it need not wait for more
        for thread in self._threads:
            thread.wait(10.0)
        self._end()


class Imports:
    """The imports of a bridge: one for each channel of another site that matches, now or later.

    Parameters
    ----------
    hub : Hub
    session : zenoh.Session
    identity : str
        Of this hub.
    patterns : sequence of str
        ``"SITE/CHANNEL"`` each, as shell patterns.
    """

    def __init__(self, hub: Hub, session: zenoh.Session, identity: str, patterns: Sequence[str]) -> None:
        self._hub = hub
        self._session = session
        self._identity = identity
        self._patterns = [p if "/" in p else f"*/{p}" for p in patterns]
        self._clocks = Clocks(session)
        self._imports: dict[Address, Import] = {}
        self._owners: dict[str, Address] = {}
        self._lock = threading.Lock()
        self._subscriber: zenoh.Subscriber[None] | None = None
        if patterns:
            self._subscriber = session.liveliness().declare_subscriber(wire.EVERY_CHANNEL, self._token, history=True)

    def _token(self, sample: zenoh.Sample) -> None:
        with contained("imports", str(sample.key_expr)):  # a thread of Zenoh's: it would print what is raised
            self._told(sample)

    def _told(self, sample: zenoh.Sample) -> None:
        found = wire.parse_token(str(sample.key_expr))
        if found is None:
            return
        address, run = found
        if address.hub == self._identity or not any(fnmatchcase(str(address), p) for p in self._patterns):
            return
        with self._lock:
            if address not in self._imports:
                self._imports[address] = Import(
                    self._hub, self._session, address, self._identity, self._clocks, self._claim
                )
            told = self._imports[address]
        told.tell("token" if sample.kind == zenoh.SampleKind.PUT else "gone", run)

    def _claim(self, address: Address) -> None:
        """Let one address have the name of its channel, and no other one, unless the first one is over."""
        with self._lock:
            owner = self._owners.setdefault(address.channel, address)
            state = self._imports[owner].status.state
            if owner != address and state == "ended":
                owner = self._owners[address.channel] = address
        if owner.site == address.site and owner != address and state == "cut":  # after a reboot it is another machine
            self._imports[owner].tell("replaced", "")
        if owner != address:
            sites = (owner.site, address.site)
            raise ExportConflict(
                f"{address.channel!r} is exported by {' and '.join(map(repr, sites))}; that of {owner.site!r} came "
                f"first. Import one of them only, such as {str(owner)!r}, or rename the other",
                channel=address.channel,
                sites=sites,
            )

    @property
    def status(self) -> tuple[ImportStatus, ...]:
        """How each of them does, in the order of their names."""
        with self._lock:
            imports = sorted(self._imports.items())
        return tuple(imported.status for _, imported in imports)

    def close(self) -> None:
        """End all of them."""
        if self._subscriber is not None:
            with contextlib.suppress(zenoh.ZError):
                self._subscriber.undeclare()
        with self._lock:
            imports = list(self._imports.values())
        for imported in imports:
            with contained("imports", str(imported.address)):
                imported.close()
