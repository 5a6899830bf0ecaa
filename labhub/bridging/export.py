"""One channel of this machine, offered to others."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from typing import Any

import msgspec
import numpy as np
import zenoh

from labhub import liveness
from labhub.bridging import wire
from labhub.bridging.backlog import Backlog
from labhub.bridging.status import ExportStatus
from labhub.bridging.wire import Address, Message, Offer
from labhub.datablock.config import ConsumerSyncPolicy
from labhub.datablock.consumer import Mode
from labhub.errors import ChannelNotFound, ChecksumError, ClosedError, LabHubError, StreamError, TimeoutExpired
from labhub.hub import Consumer, Hub
from labhub.hub.channels import ChannelInfo
from labhub.logs import event, get_logger
from labhub.tasks import Task, contained, report, words

logger = get_logger(__name__)

MESSAGE_NBYTES = 1 << 20
"""Small slots travel together, up to so many bytes; a larger one travels alone."""
LINGER = 0.001
"""How long small slots wait for company (in seconds)."""
LOOK = 0.05
"""How often it is looked whether anybody imports a channel, or wants it to end (in seconds)."""
LATE, RECENT = 1.0, 10.0
"""A network cannot keep up that lets a slot wait for so long, or for which one was given up so recently (in s)."""
DRAIN = 3.0
"""How long the end of a bridge waits for slots to be sent (in seconds)."""
LEAVE = 1.0
"""How long the end of a bridge waits for a slot that the network does not take (in seconds)."""
LOSSY_NBYTES = 8 << 20
"""Backlog of a channel that does not wait for the network (in bytes)."""


def waits(info: ChannelInfo) -> bool:
    """Whether a channel's slots wait for the network. The one lossless reader of "Sequential" is of this machine."""
    return info.policy == ConsumerSyncPolicy.SEQUENTIAL_SYNC.wire


class Export:
    """One channel of this machine, for whoever imports it.

    Two threads: one reads the ring, and never waits for anything else; the other hands what was read to the network,
    and waits for that where the channel is lossless. So a slow network costs memory, and then slots, but not the
    producer. Nothing is read before somebody imports the channel.

    Parameters
    ----------
    hub : Hub
        Whose channel it is.
    session : zenoh.Session
    address : Address
        What the others find it by.
    info : ChannelInfo
        The channel as it is now.
    buffer_nbytes : int
        Memory for slots of a lossless channel that wait for the network (in bytes).

    Attributes
    ----------
    lossless : bool
        Whether its slots wait for the network.
    attempts : int
        How often the channel was opened to be read.
    """

    def __init__(
        self, hub: Hub, session: zenoh.Session, address: Address, info: ChannelInfo, buffer_nbytes: int
    ) -> None:
        self.address = address
        self._hub = hub
        self._session = session
        self._run = secrets.token_hex(8)
        self.lossless = waits(info)
        origin = info.origin or {}
        self._path = (*origin.get("path", ()), address.hub)
        self._host = str(origin.get("host", socket.gethostname()))
        self._boot_id = str(origin.get("boot_id", liveness.boot_id()))
        self._backlog = Backlog(buffer_nbytes if self.lossless else LOSSY_NBYTES)
        self._reader: Consumer | None = None
        self._last: Offer | None = None  # of the incarnation that is being read, or was until it ended
        self._scratch = bytearray()
        self._trouble = ""
        self._sent = 0
        self._unsendable, self._unsent_why = 0, ""
        self._lost_before = 0
        self.attempts = 0
        self._wanted = threading.Event()  # not before somebody has asked: who asks first gets all that the ring holds
        self._present = threading.Event()
        self._draining = threading.Event()
        self._read_all = threading.Event()  # all that was there when the draining began
        self._closing = threading.Event()
        control = zenoh.CongestionControl.BLOCK if self.lossless else zenoh.CongestionControl.DROP
        self._publisher = session.declare_publisher(address.data, congestion_control=control)
        self._queryable = session.declare_queryable(address.offer, self._answer)
        self._imports = session.liveliness().declare_subscriber(address.imported("*"), self._joined)
        self._token: zenoh.LivelinessToken | None = None
        self._threads = [
            Task(self._read, f"export {address.channel}"),
            Task(self._send, f"send {address.channel}"),
        ]
        self.appeared()
        for thread in self._threads:
            thread.start()

    def appeared(self) -> None:
        """Tell everybody that the channel is there."""
        if self._token is None:
            self._token = self._session.liveliness().declare_token(self.address.token(self._run))
        self._present.set()

    def disappeared(self) -> None:
        """Tell everybody that the channel is gone for now; what was read is sent all the same."""
        self._present.clear()
        if self._token is not None:
            self._token.undeclare()
            self._token = None

    @property
    def status(self) -> ExportStatus:
        """How it does."""
        reader, backlog = self._reader, self._backlog
        lost = backlog.lost + self._unsendable + self._lost_before + (reader.lost if reader is not None else 0)
        unsent = backlog.unsent
        return ExportStatus(
            self.address.channel, self._state(), self.lossless, self._sent, lost, unsent, backlog.unsent_nbytes
        )

    def _state(self) -> str:
        ended = [words(thread.error) for thread in self._threads if thread.error is not None]
        if trouble := [*ended, *filter(None, (self._trouble, self._unsent_why))]:
            return trouble[0]
        if self.lossless and self._backlog.is_late(LATE, RECENT) and self._matched():
            return "network cannot keep up"
        if not self._present.is_set():
            return "gone"
        if not self._wanted.is_set():
            return "waiting"
        return "sending" if self._matched() else "no reader"

    def _matched(self) -> bool:
        with contextlib.suppress(zenoh.ZError):  # the session is being closed
            status: Any = self._publisher.matching_status  # its stub says bool, and means MatchingStatus
            return bool(status.matching)
        return False

    # -------------------------------------------------------------------------------------------------- first thread

    def _read(self) -> None:
        """Read the channel, one incarnation after the other."""
        while not self._closing.is_set():
            if not (self._wanted.wait(LOOK) and self._present.wait(LOOK)):
                continue
            self.attempts += 1
            try:
                self._read_one()
                self._trouble = ""
            except ChannelNotFound:
                self._closing.wait(LOOK)
            except Exception as error:  # noqa: BLE001  # around one incarnation: the next one may be better
                if isinstance(error, ClosedError) and not self._hub.usable:
                    return
                self._note(error)
                self._closing.wait(1.0)

    def _note(self, error: Exception) -> None:
        """Say what is wrong in the state and, once, in the log."""
        before, self._trouble = self._trouble, words(error)
        if self._trouble == before:
            return
        if isinstance(error, LabHubError):
            facts = self._facts("export_trouble", error)
            logger.warning("export of %s: %s", self.address.channel, error, extra=facts)
        else:
            report("item_failed", error, thread=threading.current_thread().name, item=self.address.channel)

    def _read_one(self) -> None:
        mode: Mode = "lossless" if self.lossless else "stream"
        with self._hub.consumer(self.address.channel, mode, start="oldest") as reader:
            instance = reader.instance_id
            self._last = self._described(reader)
            self._reader = reader
            self._trouble = ""
            self._backlog.begin(instance, reader.cursor)
            max_slots = max(1, MESSAGE_NBYTES // max(1, reader.schema.slot_nbytes))
            try:
                while not self._closing.is_set():
                    if not self._pass_on(reader, instance, max_slots):
                        self._backlog.append(Message.the_end(instance, reader.cursor, reader.epoch))
                        return
                    if self._draining.is_set() and not reader.lag:  # only here nothing is in our hands
                        self._read_all.set()
            finally:
                self._lost_before += reader.lost
                self._reader = None

    def _pass_on(self, reader: Consumer, instance: bytes, max_slots: int) -> bool:
        """Move what was written into the backlog; False at the end of the stream."""
        try:
            if max_slots == 1:
                return self._moved_one(reader, instance)
            if reader.lag < max_slots:
                with contextlib.suppress(TimeoutExpired):
                    return self._moved(reader, instance, max_slots, max_slots, LINGER)
            return self._moved(reader, instance, max_slots, 1, LOOK)
        except TimeoutExpired:
            return True
        except (ChecksumError, StreamError) as error:  # what is missing shows in the seqs
            logger.warning("export of %s: %s", self.address.channel, error, extra=self._facts("export_lost", error))
            return True

    def _moved(self, reader: Consumer, instance: bytes, max_slots: int, min_slots: int, timeout: float) -> bool:
        batch = reader.next_batch(max_slots, min_slots, timeout, False)
        reader.in_hand.item = None  # no Ctrl-C comes into this thread
        if batch is None:
            return False
        self._backlog.append(Message.of(batch, instance, reader.schema.slot_nbytes))
        return True

    def _moved_one(self, reader: Consumer, instance: bytes) -> bool:
        """Move one large slot, without the detour of a batch."""
        try:
            with reader.slot(LOOK) as slot:
                headers = np.array([slot.header])
                # A new bytes object would cost page faults, which are several times as long as the copy.
                if len(self._scratch) != slot.array.nbytes:
                    self._scratch = bytearray(slot.array.nbytes)
                np.frombuffer(self._scratch, np.uint8)[:] = slot.array.reshape(-1).view(np.uint8)
        except EOFError:
            return False
        payload = zenoh.ZBytes(self._scratch)
        self._backlog.append(Message(instance, slot.seq, slot.epoch, headers, payload, len(self._scratch)))
        return True

    # ------------------------------------------------------------------------------------------------- second thread

    def _send(self) -> None:
        """Hand the backlog to the network, which may make us wait."""
        while not self._closing.is_set():
            if self.lossless and not self._matched():
                self._closing.wait(LOOK)
                continue
            taken = self._backlog.take(LOOK)
            if taken is None:
                continue
            generation, follows, message = taken
            try:
                self._put(message, message.attachment(self._run, generation, follows))
            except Exception as error:  # noqa: BLE001  # around one message: what is missing shows in the seqs
                if self._closing.is_set() or self._session.is_closed():
                    return
                if self._unsent_why != words(error):
                    report("item_failed", error, thread=threading.current_thread().name, item=str(self.address))
                self._unsendable, self._unsent_why = self._unsendable + len(message.headers), words(error)
            else:
                self._sent, self._unsent_why = self._sent + len(message.headers), ""
            self._backlog.handed_over()

    def _put(self, message: Message, attachment: bytes) -> None:
        if message.end:  # the one that is never dropped: no later one would tell what is missing
            control = zenoh.CongestionControl.BLOCK
            self._session.put(self.address.data, b"", attachment=attachment, congestion_control=control)
        else:
            self._publisher.put(message.payload, attachment=attachment)

    # ----------------------------------------------------------------------------------------------------- questions

    def _answer(self, question: zenoh.Query) -> None:
        with contained("export", self.address.channel):  # a thread of Zenoh's: it would print what is raised
            self._say(question)

    def _say(self, question: zenoh.Query) -> None:
        """Say what the channel is, and go back to what the asking side needs next."""
        asked = question.parameters
        try:
            instance, seq = wire.parse_place(asked.get("instance") or "", asked.get("next") or "0")
            if asked.get("run") not in (None, self._run):
                return  # another bridge of this hub is asked
            offer = self._offer(instance, seq)
        except (LabHubError, ValueError) as error:
            question.reply_err(str(error))
            return
        if offer is None:
            question.reply_err(self._trouble or f"{self.address} is not there now")
            return
        question.reply(self.address.offer, msgspec.json.encode(offer))

    def _joined(self, sample: zenoh.Sample) -> None:
        with contained("export", self.address.channel):
            if sample.kind == zenoh.SampleKind.PUT:
                self._backlog.repeat_end()

    def _offer(self, instance: bytes, seq: int) -> Offer | None:
        self._wanted.set()
        known = self._backlog.rewind(instance, seq, wire.ANSWER_PATIENCE)
        last, reader = self._last, self._reader
        if known is None or last is None or (reader is None and not instance):  # it has ended, for who has none of it
            return None
        generation, current, resume = known
        if current.hex() != last.instance:  # the rest of the one before is still on its way
            return None
        epoch = last.epoch if reader is None else reader.epoch
        return msgspec.structs.replace(last, epoch=epoch, resume=resume, generation=generation)

    def _described(self, reader: Consumer) -> Offer:
        """What is said of the channel, wherever it goes on."""
        return Offer(
            version=wire.VERSION,
            run=self._run,
            instance=reader.instance_id.hex(),
            schema=reader.schema.to_json(),
            capacity=reader.capacity,
            lossless=self.lossless,
            checksum_policy=reader.checksum_policy.wire,
            epoch=reader.epoch,
            resume=0,
            generation=0,
            path=self._path,
            host=self._host,
            boot_id=self._boot_id,
        )

    def drain(self, deadline: float) -> None:
        """Wait until what was written is sent, if anybody wants it; at most until then (on the monotonic clock)."""
        self._draining.set()
        while self._wanted.is_set() and self._matched() and time.monotonic() < deadline:
            if (self._reader is None or self._read_all.is_set()) and self._backlog.is_empty:
                return
            self._closing.wait(LINGER)

    def close(self, patience: float = LEAVE) -> None:
        """Withdraw it; what still waits for the network is lost.

        A network that does not move keeps the second thread until the session ends, which is not waited for for longer
        than `patience` (in seconds).
        """
        self._closing.set()
        self._backlog.close()
        with contextlib.suppress(zenoh.ZError):
            self.disappeared()
            self._queryable.undeclare()
            self._imports.undeclare()
        reads, sends = self._threads
        reads.wait(5.0)
        sends.wait(patience)
        if not sends.is_alive():  # else it has the publisher, which ends with the session
            with contextlib.suppress(zenoh.ZError):
                self._publisher.undeclare()

    def _facts(self, name: str, error: Exception) -> dict[str, object]:
        return event(name, channel=self.address.channel, reason=str(error))
