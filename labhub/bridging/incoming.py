"""One channel of another machine, brought to this one."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import zenoh

from labhub.bridging import wire
from labhub.bridging.clocks import Offset
from labhub.bridging.copies import Copy, schema_of
from labhub.bridging.crew import Job
from labhub.bridging.inbox import Inbox
from labhub.bridging.network import ask, nbytes_of
from labhub.bridging.room import NoRoom, ring_nbytes
from labhub.bridging.shared import Shared
from labhub.bridging.status import ImportStatus
from labhub.bridging.wire import Address, Offer
from labhub.errors import BridgeError, ExportConflict, LabHubError, ProtocolError
from labhub.logs import event, get_logger
from labhub.schema import Schema
from labhub.tasks import contained, report, words

logger = get_logger(__name__)

TURN = 8
"""Messages that are written in one turn, before other channels have theirs."""
RETRY = 0.5
"""How often it is asked again for what was refused or not answered (in seconds)."""
TRIES = 3
"""So many answers may fail to come before a slot that is missing is given up."""
ANSWER_PATIENCE = 5.0
"""How long after its time an answer is waited for, should even the news fail that there is none (in seconds)."""
CLOCK_PATIENCE = 7.0
"""How long a channel waits for a look at the clock of its machine, before it appears without (in seconds)."""
LAST_WRITES = 2.0
"""How long the end of an import goes on writing what has arrived (in seconds)."""
MAX_RUNS = 64
"""Most bridges that may export one channel of one hub at a time."""
AT_REST = ("refused", "conflict", "loop", "left out")
"""States in which a message does not make an import ask at once."""


class Import:
    """One channel of another machine, as a local one.

    It has no thread of its own: a crew gives it turns, one at a time, in which it takes news and slots. In a turn it
    never waits for the network; what arrives while an answer is expected stays in its inbox.

    Parameters
    ----------
    shared : Shared
    address : Address
        Whose it is.
    """

    def __init__(self, shared: Shared, address: Address) -> None:
        self.address = address
        self.runs: set[str] = set()
        self._hub, self._session, self._identity, self._clocks, self._claim = shared[:5]
        self._room, self._crew, self._lookers = shared.room, shared.crew, shared.lookers
        self._copy: Copy | None = None
        self._known: tuple[bytes, int] | None = None  # of the copy that was before: its instance, and what came next
        self._schema: Schema | None = None
        self._offer: Offer | None = None
        self._finished = ""  # the instance whose end has come
        self._state, self._detail = "waiting", ""
        self._received = 0
        self._lost = 0
        self._needs = 0  # bytes of a ring that there was no room for
        self._question = self._n_questions = 0  # the one that is under way, or 0; how many there were
        self._asked_at = 0.0
        self._unanswered = 0
        self._ask_again = False
        self._asked_for: zenoh.Sample | None = None  # the message that made us ask
        self._agreed: tuple[Offer, float] | None = None  # what waits for a look at the clock, and since when
        self._news: deque[tuple[str, Any]] = deque()
        self._inbox: Inbox[zenoh.Sample] = Inbox(shared.questions)
        self._job = Job(str(address), self._turn)
        self._look_job = Job(str(address), self._look)
        # Called by Zenoh's own thread: while the copy's readers hold it up, that one waits, and so does the network.
        arrived = zenoh.handlers.Callback(self._arrived, indirect=False)
        self._subscriber = self._session.declare_subscriber(address.data, arrived)
        self._token = self._session.liveliness().declare_token(address.imported(self._identity))

    def tell(self, word: str, what: Any = None) -> None:
        """Tell it news: ``"token"`` or ``"gone"`` of a run of the export, or what has happened else."""
        self._news.append((word, what))
        self._crew.wake(self._job)

    def tick(self) -> None:
        """Ask again, now and then, for what failed."""
        now = time.monotonic()
        agreed = self._agreed
        if agreed is not None and now - agreed[1] > CLOCK_PATIENCE:
            self.tell("clock")
        elif self._question and now - self._asked_at > ANSWER_PATIENCE:
            self.tell("answer", (self._question, None))
        elif not (self._question or agreed or self._state in ("receiving", "ended")) and (
            self._state != "left out" or self._room.has(self._needs)
        ):
            self.tell("again")

    def look(self) -> None:
        """Look at the clock of the other machine, soon."""
        self._lookers.wake(self._look_job)

    @property
    def state(self) -> str:
        """How it does, in a word."""
        return self._state

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to import any more, for now."""
        return self._state in ("ended", "cut") and not self.runs and self._copy is None

    @property
    def status(self) -> ImportStatus:
        """How it does."""
        copy, offset = self._copy, self._clocks.known(self.address)
        broken = self._crew.error or self._lookers.error
        return ImportStatus(
            self.address.site,
            self.address.channel,
            "failed" if broken else self._state,
            words(broken) if broken else self._detail,
            self._received,
            self._lost + (0 if copy is None else copy.lost),
            None if offset is None else offset.offset_ns,
            None if offset is None else offset.round_trip_ns // 2,
        )

    # --------------------------------------------------------------------------------------- called by Zenoh's threads

    def _arrived(self, sample: zenoh.Sample) -> None:
        with contained("import", str(self.address)):
            self._inbox.put(sample, nbytes_of(sample))
            self._crew.wake(self._job)

    def _answer_came(self, number: int, answer: bytes | LabHubError | None) -> None:
        if number == self._question:
            self.tell("answer", (number, answer))

    # -------------------------------------------------------------------------------------------------------- its turns

    def _turn(self) -> bool:
        """Take the news and some slots; whether there are more, which do not wait for an answer."""
        while self._news:
            word, what = self._news.popleft()
            self._try(partial(self._heard, word, what))
        for _ in range(TURN):
            if self._question or self._agreed or (sample := self._inbox.take()) is None:
                return False
            self._try(partial(self._take, sample))
        return True

    def _look(self) -> bool:
        """Look at the clock there; in a thread that may wait for it."""
        self.tell("clock", self._clocks.offset(self.address))
        return False

    def _heard(self, word: str, what: Any) -> None:
        match word:
            case "answer" if what[0] == self._question:
                self._question = 0
                self._inbox.ask(False)
                self._answered(what[1])
                self._follow_up()
            case "clock":
                self._looked(what)
                self._follow_up()
            case "again" if self.runs and self._state not in ("receiving", "ended"):
                self._ask()
            case "token" if len(self.runs) < MAX_RUNS:
                self.runs.add(what)
                self._ask()
            case "gone":
                self.runs.discard(what)
                if not self.runs and self._state != "ended":
                    self._say("cut", "the other side cannot be reached")
                elif self.runs and self._offer is not None and self._offer.run == what:
                    self._ask()  # another bridge of that hub goes on
            case "replaced" if not self.runs:
                self._end()
                self._say("ended", "another machine has taken its place")

    def _follow_up(self) -> None:
        """Ask what could not be asked while there was another question."""
        if self._ask_again and self.runs:
            self._ask()

    def _try(self, step: Callable[[], None]) -> None:
        """Do something that may fail: then the state says why, and it is tried again."""
        try:
            step()
        except ExportConflict as error:
            self._say("conflict", str(error))
        except NoRoom as error:
            self._say("left out", str(error))
        except Exception as error:  # noqa: BLE001  # around one step: the next one may do better
            foreseen = isinstance(error, (LabHubError, OSError, zenoh.ZError))
            why = " ".join(str(error).split()) if foreseen else words(error)
            if not foreseen and self._detail != why:
                report("item_failed", error, thread="import", item=str(self.address))
            self._say("refused", why)

    def _say(self, state: str, detail: str = "") -> None:
        if (state, detail) != (self._state, self._detail) and state in (
            "refused",
            "conflict",
            "left out",
            "loop",
        ):
            facts = event("import_trouble", channel=str(self.address), state=state, reason=detail)
            logger.warning("import of %s: %s: %s", self.address, state, detail, extra=facts)
        self._state, self._detail = state, detail

    # -------------------------------------------------------------------------------------------- what the channel is

    def _ask(self) -> None:
        """Ask what the channel is, and where it goes on."""
        self._ask_again = bool(self._question or self._agreed)
        if self._ask_again:  # that answer may be older than the news
            return
        copy = self._copy
        known = self._known if copy is None else (copy.instance, copy.next_seq)
        where = {} if known is None else {"instance": known[0].hex(), "next": str(known[1])}
        if self._offer is not None and self._offer.run in self.runs:
            where["run"] = self._offer.run
        self._n_questions += 1
        self._question, self._asked_at = self._n_questions, time.monotonic()
        self._inbox.ask(True)
        try:
            ask(self._session, self.address.offer, where, partial(self._answer_came, self._question))
        except BaseException:
            self._question = 0
            self._inbox.ask(False)
            raise

    def _answered(self, answer: bytes | LabHubError | None) -> None:
        """Go on with the local channel, or have a new one made."""
        self._unanswered = self._unanswered + 1 if answer is None else 0
        if answer is None:
            self._say("waiting", "the other side does not answer")
            return
        if isinstance(answer, BridgeError):
            self._say("waiting", f"the other side says: {answer}")
            return
        if isinstance(answer, LabHubError):
            raise answer
        offer = wire.decode_offer(answer)
        if self._identity in offer.path:
            self._say("loop", "this channel comes from here")
            return
        if offer.instance == self._finished:  # it was asked just before it begins to read the next one
            self._say("waiting", "all of it is here; the other side has not begun the next one yet")
            return
        self._claim(self.address)
        copy = self._copy
        if copy is None or copy.instance.hex() != offer.instance:
            self._reserve(offer)
            self._agreed = offer, time.monotonic()
            self.look()
            return
        if offer.resume > copy.next_seq:
            self._rescue(copy, offer)
            copy.lose_until(offer.resume)
        self._offer = offer
        self._say("receiving")

    def _reserve(self, offer: Offer) -> None:
        """Take room for a new ring, or raise why there is none; the old one ends."""
        slot_nbytes = schema_of(offer).slot_nbytes
        self._end()
        self._needs = ring_nbytes(offer.capacity, slot_nbytes)
        self._room.take(self.address, offer.capacity, slot_nbytes)

    def _looked(self, offset: Offset | None) -> None:
        """Make the channel that has waited for this look at the clock, or tell the broker what it says now."""
        agreed, self._agreed = self._agreed, None
        if agreed is not None:
            try:
                changed = self._replace(agreed[0], offset)
            except BaseException:
                self._room.give_back(self.address)
                raise
            self._offer = agreed[0]
            self._say("receiving", changed)
            return
        if self._copy is not None and offset is not None:
            self._copy.set_clock(offset)

    def _rescue(self, copy: Copy, offer: Offer) -> None:
        """Write what the other side has forgotten, but which came while it was asked."""
        for sample in self._inbox.waiting():
            with contextlib.suppress(ProtocolError):
                attachment = b"" if sample.attachment is None else sample.attachment
                found = wire.decode(attachment, sample.payload, copy.schema.slot_nbytes)
                is_of_it = (found.run, found.message.instance) == (offer.run, copy.instance)
                if is_of_it and copy.next_seq <= found.message.first_seq < offer.resume:
                    self._received += copy.write(found.message)

    def _replace(self, offer: Offer, offset: Offset | None) -> str:
        """Make the local channel anew; what has changed in its schema, if anything."""
        copy = self._copy = Copy(self._hub, self.address, offer, offset)
        before, self._schema = self._schema or copy.schema, copy.schema
        if not (lines := before.difference(copy.schema)):
            return ""
        facts = event("import_schema_changed", channel=str(self.address), differences=lines)
        logger.warning("import of %s: its schema has changed: %s", self.address, "; ".join(lines), extra=facts)
        return f"its schema has changed: {'; '.join(lines)}"

    # ------------------------------------------------------------------------------------------------------- its slots

    def _take(self, sample: zenoh.Sample) -> None:
        copy, offer = self._copy, self._offer
        attachment = b"" if sample.attachment is None else sample.attachment
        head = wire.decode(attachment, b"", None)
        if offer is not None and head.run != offer.run and offer.run in self.runs:
            return  # of a second bridge on the same hub, which exports the same
        if head.message.end and self._known == (head.message.instance, head.message.first_seq):
            return  # it has ended here, too
        known = None if copy is None or offer is None else (offer.run, copy.instance)
        if known != (head.run, head.message.instance) and self._asks_for(sample):
            return
        if copy is None or offer is None or head.message.instance != copy.instance:
            return  # of an incarnation that is over, or of one that was refused
        if head.generation < offer.generation and head.run == offer.run and head.message.first_seq > copy.next_seq:
            return  # it was on its way when we asked for an earlier one
        if head.follows > copy.next_seq and offer.lossless and self._asks_for(sample):
            return  # what is between was lost on the way, and perhaps it can be sent again
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

    def _asks_for(self, sample: zenoh.Sample) -> bool:
        """Ask what is the matter with a message, which is taken again after the answer; False if that was done."""
        again = sample is self._asked_for
        if again and not (self._unanswered and self._unanswered < TRIES and self.runs):
            return False
        if self._state in AT_REST and time.monotonic() - self._asked_at < RETRY:
            return False
        self._asked_for = sample
        if not again:
            self._unanswered = 0
        self._inbox.put_back(sample, nbytes_of(sample))
        self._ask()
        return True

    def _end(self) -> None:
        """End the local channel; its readers get what is left."""
        if (copy := self._copy) is not None:
            self._lost += copy.lost
            self._known = copy.instance, copy.next_seq
            self._copy = self._offer = None
            copy.close()
        self._room.give_back(self.address)

    def hush(self) -> None:
        """Take nothing more from the network, and let it wait for nothing here."""
        self._inbox.close()

    def close(self) -> None:
        """End it; the local channel ends with it, and with what has arrived."""
        self.hush()
        with contextlib.suppress(zenoh.ZError):
            self._subscriber.undeclare()
            self._token.undeclare()
        self._lookers.stop(self._look_job, 10.0)
        self._crew.stop(self._job, 10.0)
        deadline = time.monotonic() + LAST_WRITES
        while not (self._question or self._agreed) and time.monotonic() < deadline:
            if (sample := self._inbox.take()) is None:
                break
            self._try(partial(self._take, sample))
        self._inbox.clear()
        self._end()
