"""The broker's side of every conversation, as a state machine: messages and the time go in, messages come out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from labhub.errors import ProtocolError
from labhub.logs import event, get_logger
from labhub.protocol import codec
from labhub.protocol.access import Access
from labhub.protocol.judging import Liveness, Probe, judge
from labhub.protocol.messages import (
    CLOSING_GRACE,
    HEARTBEAT_EXPIRY,
    MAX_MESSAGE_NBYTES,
    MAX_PAGE_NBYTES,
    TAKEOVER_GRACE,
    TYPE_NAME,
    ChannelEntry,
    ChecksumErrorAck,
    ChecksumErrorReq,
    ConsumerDeregAck,
    ConsumerDeregReq,
    ConsumerRegAck,
    ConsumerRegReq,
    DeregAck,
    DeregReq,
    DiscAck,
    DiscReq,
    Error,
    ErrorCode,
    Event,
    EventKind,
    HeartbeatAck,
    HeartbeatReq,
    ListAck,
    ListReq,
    Message,
    MetricsAck,
    MetricsReportAck,
    MetricsReportReq,
    MetricsReq,
    RegAck,
    RegReq,
    Right,
    SchemaAck,
    SchemaReq,
    UnwatchAck,
    UnwatchReq,
    WatchReq,
)
from labhub.protocol.peer import Outgoing, Peer
from labhub.protocol.quotas import Quotas
from labhub.protocol.readers import Readers
from labhub.protocol.registry import ChannelRegistry, Registration
from labhub.protocol.watches import Watches

__all__ = ["BrokerState", "Outgoing", "Peer"]

logger = get_logger(__name__)

PROBES_PER_TICK = 200
MAX_REASON = 300
"""Characters of a refusal's reason that are logged: it may quote what a stranger has sent."""
SUSPICIOUS = frozenset({ErrorCode.INVALID_REQUEST, ErrorCode.UNAUTHORIZED, ErrorCode.QUOTA_EXCEEDED})
"""Refusals that no client of labhub's own causes in the normal course of things."""

LONG_ANSWER = (ListReq, DiscReq, SchemaReq)
"""Requests whose answers hold what others have registered, and may be long."""


class BrokerState:
    """What the broker knows, and the rules about who may change it.

    Parameters
    ----------
    probe : callable
        Judges the producer of a registration by its segment: ``"alive"``, ``"closed"``, ``"dead"`` or ``"unknown"``.
    bury : callable
        Removes the segment of a registration whose producer is provably dead.
    allowed : callable
        Whether a client key is on the allow-list now; asked for every request.
    access : Access, optional
        Which of them may do what; everything, unless given. Asked for every request and event. After its rules are
        replaced, `rules_changed` is called.
    max_channels_per_key, max_watches_per_key, max_consumers_per_key : int
        Quotas.
    max_nbytes_per_key : int
        How much all registrations of a key may take together (in bytes).
    unread : callable
        Returns why a connection gets no more long answers; empty while it reads what it asked for.
    started_at : float, optional
        When the broker started, on the clock that every `now` is of (in seconds).
    others : callable, optional
        Returns numbers of the broker that are not kept here.
    """

    def __init__(
        self,
        probe: Probe,
        bury: Callable[[Registration], object] = lambda _: None,
        allowed: Callable[[str], bool] = lambda _: True,
        access: Access | None = None,
        max_channels_per_key: int = 20_000,
        max_watches_per_key: int = 256,
        max_consumers_per_key: int = 20_000,
        max_nbytes_per_key: int = 256 * 1024 * 1024,
        unread: Callable[[Peer], str] = lambda _: "",
        started_at: float | None = None,
        others: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.registry = ChannelRegistry()
        self._access = access or Access()
        self.watches = Watches(allowed, self._access, max_watches_per_key)
        self.version = 0  # rises with every event that changes what a list says
        self.ignored = 0  # messages that could not even be answered
        self.refused: Counter[str] = Counter()  # answered with an error, by its code
        self._probe = probe
        self._bury = bury
        self._allowed = allowed
        self._quotas = Quotas(max_channels_per_key, max_nbytes_per_key)
        self._readers = Readers(max_consumers_per_key)
        self._unread = unread
        self._to_probe: list[str] = []
        self._to_tell: list[Outgoing] = []
        self._counts = Counter(registrations=0, events=0, checksum_errors=0)
        self._started_at = started_at
        self._others = others

    # ----------------------------------------------------------------------------------------------------- receiving

    def receive(self, peer: Peer, frames: Sequence[bytes], now: float) -> list[Outgoing]:
        """Take one message, as the frames behind the routing id; return what to send.

        Never raises on what a peer sends: what cannot be understood is answered with ``ERROR``. Only what a client
        without a valid key sends is dropped, and counted in `ignored`, if it is no message at all. Behind the reply
        come the events that the request caused, for whoever watches.
        """
        envelope = None
        try:
            if sum(map(len, frames)) > 2 * MAX_MESSAGE_NBYTES:
                raise ProtocolError("the message is too long", marked=False)
            envelope = codec.split(frames)
            request = codec.decode(envelope)
            if not self._allowed(peer.key):
                raise ProtocolError("this client's key is not on the allow-list", code=ErrorCode.UNAUTHORIZED.value)
            self._access.require(peer.key, request)
            if isinstance(request, LONG_ANSWER) and (why := self._unread(peer)):
                raise ProtocolError(why, code=ErrorCode.QUOTA_EXCEEDED.value)
            self.watches.meet(peer)
            reply = self._answer(peer, request, now, marked=envelope.marked)
        except ProtocolError as error:
            marked = envelope.marked if envelope else getattr(error, "marked", False)
            return self._refuse(peer, error, envelope, marked=marked)
        reply = msgspec.structs.replace(reply, correlation_id=request.correlation_id)
        return [Outgoing(peer.routing_id, codec.encode(reply, marked=envelope.marked), peer.key), *self._told()]

    def _refuse(
        self, peer: Peer, error: ProtocolError, envelope: codec.Envelope | None, *, marked: bool
    ) -> list[Outgoing]:
        self.refused[error.code] += 1
        if envelope is None and not self._allowed(peer.key):
            self.ignored += 1
            return []
        level = logging.WARNING if error.code in SUSPICIOUS else logging.INFO
        reason = str(error)[:MAX_REASON]
        facts = event("request_refused", code=error.code, reason=reason, key=peer.key)
        logger.log(level, "refused: %s (%s)", reason, error.code, extra=facts)
        correlation = codec.correlation_of(envelope) if envelope else None
        reply = Error(
            error_code=error.code,
            message=str(error),
            details=dict(error.details) or msgspec.UNSET,
            correlation_id=correlation or msgspec.UNSET,
        )
        return [Outgoing(peer.routing_id, codec.encode(reply, marked=marked), peer.key)]

    def _answer(self, peer: Peer, request: Message, now: float, *, marked: bool) -> Message:
        match request:
            case RegReq():
                return self._register(peer, request, now)
            case DiscReq():
                return self._discover(request)
            case DeregReq():
                return self._deregister(peer, request)
            case HeartbeatReq():
                return self._heartbeat(peer, request, now)
            case ListReq():
                return self._list(peer, request, now)
            case ConsumerRegReq():
                self._readers.note(self._known(request.channel_name), (peer.key, request.consumer_pid), now)
                return ConsumerRegAck()
            case ConsumerDeregReq():
                self._readers.drop(self._known(request.channel_name), (peer.key, request.consumer_pid))
                return ConsumerDeregAck()
            case SchemaReq():
                return self._schema(request)
            case MetricsReportReq():
                entry = self._owned(peer, request.channel_name, request.producer_pid)
                entry.metrics, entry.metrics_at = request.metrics, now
                return MetricsReportAck()
            case MetricsReq():
                return self._metrics(request, now)
            case ChecksumErrorReq():
                return self._checksum_error(request)
            case WatchReq():
                return self.watches.renew(peer, request, now, marked=marked)
            case UnwatchReq():
                self.watches.end(peer, request.watch_id)
                return UnwatchAck()
        raise ProtocolError(f"{TYPE_NAME[type(request)]} is not a request; a client sends requests")

    # --------------------------------------------------------------------------------------------------------- rules

    def _register(self, peer: Peer, request: RegReq, now: float) -> Message:
        new = Registration.of(request, peer.key, now)
        old = self.registry.find_channel(request.channel_name)
        # Who takes a segment over is the same user; a stranger who claims a higher epoch needs the proof of a death.
        displaced = old is not None and new.owner_key == old.owner_key and new.succeeds(old)
        refreshed = old is not None and not displaced and self.liveness(old, now) != "dead"
        if refreshed:
            assert old is not None  # only what was there can be refreshed
            new.refresh(old)
        self._quotas.require_room(new, old)
        if refreshed:
            self._readers.hand_on(new)
        elif old is not None:
            self._readers.forget(old)
        if old is not None:
            self._forget(old)
        self.registry.register_channel(request.channel_name, new)
        self._quotas.add(new)
        self._counts["registrations"] += not refreshed
        self._tell_registered(new, old, now, refreshed=refreshed)
        return RegAck(channel_id=request.channel_name)

    def _tell_registered(self, new: Registration, old: Registration | None, now: float, *, refreshed: bool) -> None:
        """Tell the watchers of a registration; of one that was only refreshed there is nothing to tell."""
        if old is None:
            facts = event("channel_registered", channel=new.channel_name, pid=new.producer_pid)
            logger.info("channel %s registered by process %d", new.channel_name, new.producer_pid, extra=facts)
            self._tell(EventKind.APPEARED, new, now)
        elif new.declared != old.declared:
            self._tell(EventKind.SCHEMA, new, now)
        elif new.succeeds(old):
            self._tell(EventKind.APPEARED, new, now, f"taken over from process {old.producer_pid}")
        elif not refreshed:
            died = f"replaces process {old.producer_pid}, which died"
            self._tell(EventKind.APPEARED, new, now, new.is_back if new.owner == old.owner else died)

    def _discover(self, request: DiscReq) -> Message:
        entry = self._known(request.channel_name)
        return DiscAck(
            shm_name=entry.shm_name,
            schema_hash=entry.schema_hash,
            schema_version=entry.schema_version,
            metadata=entry.metadata,
        )

    def _deregister(self, peer: Peer, request: DeregReq) -> Message:
        entry = self._owned(peer, request.channel_name, request.producer_pid)
        self._readers.forget(entry)
        self._forget(entry)
        facts = event("channel_deregistered", channel=entry.channel_name, pid=entry.producer_pid)
        logger.info("channel %s deregistered", entry.channel_name, extra=facts)
        self._tell(EventKind.GONE, entry)
        return DeregAck()

    def _owned(self, peer: Peer, channel: str, pid: int) -> Registration:
        """The registration of a channel, if it is this client's."""
        entry = self.registry.find_channel(channel)
        if entry is None or entry.owner_key != peer.key or entry.producer_pid != pid:
            raise ProtocolError(
                f"Channel '{channel}' not registered or pid mismatch", code=ErrorCode.NOT_REGISTERED.value
            )
        return entry

    def _heartbeat(self, peer: Peer, request: HeartbeatReq, now: float) -> Message:
        unknown = []
        for name in request.channels:
            entry = self.registry.find_channel(name)
            owned = entry is not None and (entry.owner_key, entry.producer_pid) == (peer.key, request.producer_pid)
            if entry is not None and owned and self._access.may(peer.key, Right.PRODUCE, name):
                entry.heartbeat_at = now
            else:  # it registers again, and is told why it may not
                unknown.append(name)
        return HeartbeatAck(unknown=unknown)

    def _list(self, peer: Peer, request: ListReq, now: float) -> Message:
        visible = self._access.allows(peer.key, Right.CONSUME)
        names = [name for name in self.registry.names() if fnmatchcase(name, request.pattern) and visible(name)]
        page: list[ChannelEntry] = []
        nbytes = 0
        for name in names[request.offset : request.offset + request.limit]:
            entry = self._known(name)
            page.append(self._entry(entry, now))
            nbytes += entry.nbytes
            if nbytes > MAX_PAGE_NBYTES:
                break
        following = request.offset + len(page)
        return ListAck(
            channels=page,
            total=len(names),
            next_offset=following if page and following < len(names) else -1,
            version=self.version,
        )

    def _entry(self, entry: Registration, now: float) -> ChannelEntry:
        return ChannelEntry(
            channel_name=entry.channel_name,
            shm_name=entry.shm_name,
            schema_hash=entry.schema_hash,
            schema_version=entry.schema_version,
            producer_pid=entry.producer_pid,
            producer_hostname=entry.producer_hostname,
            metadata=entry.metadata,
            liveness=self.liveness(entry, now),
            age_s=round(now - entry.registered_at, 3),
            consumers=sum(now - heard_at <= HEARTBEAT_EXPIRY for heard_at in entry.consumers.values()),
        )

    def _schema(self, request: SchemaReq) -> Message:
        entry = self._known(request.channel_name)
        text = entry.metadata.get("schema")
        return SchemaAck(
            channel_name=entry.channel_name,
            schema_hash=entry.schema_hash,
            schema_version=entry.schema_version,
            schema=text if isinstance(text, str) else None,
        )

    def _metrics(self, request: MetricsReq, now: float) -> Message:
        if request.channel_name is None:
            return MetricsAck(metrics=self.metrics(now), age_s=0.0)
        entry = self._known(request.channel_name)
        age = -1.0 if entry.metrics_at is None else round(now - entry.metrics_at, 3)
        return MetricsAck(channel_name=entry.channel_name, metrics=entry.metrics, age_s=age)

    def metrics(self, now: float) -> dict[str, float]:
        """The broker's own numbers.

        Returns
        -------
        dict of str to float
            ``channels`` and ``watches`` now; ``registrations``, ``events`` sent, ``checksum_errors`` told and messages
            ``ignored`` since the start; ``refused.<code>`` for each error code that was answered; ``uptime_s``; and
            the numbers that are not kept here.
        """
        numbers: dict[str, float] = {
            "channels": len(self.registry),
            "watches": len(self.watches),
            "ignored": self.ignored,
        }
        numbers |= self._counts
        numbers |= self._others()
        numbers |= {f"refused.{code}": n for code, n in sorted(self.refused.items())}
        up = {} if self._started_at is None else {"uptime_s": round(now - self._started_at, 3)}
        return {name: float(n) for name, n in numbers.items()} | up

    def _checksum_error(self, request: ChecksumErrorReq) -> Message:
        entry = self._known(request.channel_name)
        if entry.note_corrupt(request.seq):
            self._counts["checksum_errors"] += 1
            facts = event("checksum_error", channel=entry.channel_name, seq=request.seq, pid=entry.producer_pid)
            logger.error("slot %d of channel %s is corrupt", request.seq, entry.channel_name, extra=facts)
            self._tell(EventKind.CHECKSUM_ERROR, entry, detail=f"seq {request.seq}")
        return ChecksumErrorAck()

    def rules_changed(self) -> None:
        """Let whoever lists or watches notice that he may see other channels than before."""
        self.version += 1
        self.watches.restart()

    def _known(self, channel: str) -> Registration:
        entry = self.registry.find_channel(channel)
        if entry is None:
            raise ProtocolError(f"Channel '{channel}' is not registered", code=ErrorCode.CHANNEL_NOT_FOUND.value)
        return entry

    def _forget(self, entry: Registration) -> None:
        self.registry.remove(entry.channel_name)
        self._quotas.remove(entry)

    def _tell(self, kind: EventKind, entry: Registration, now: float | None = None, detail: str = "") -> None:
        """Send an event to whoever watches; with `now`, also what is registered then."""
        if kind is not EventKind.CHECKSUM_ERROR:
            self.version += 1
        if not self.watches:
            return
        self._to_tell += self.watches.tell(
            Event(
                watch_id="",
                serial=0,
                event=kind,
                channel_name=entry.channel_name,
                producer_pid=entry.producer_pid,
                version=self.version,
                detail=detail,
                channel=None if now is None else self._entry(entry, now),
            )
        )

    def _told(self) -> list[Outgoing]:
        sent, self._to_tell = self._to_tell, []
        self._counts["events"] += len(sent)
        return sent

    # ------------------------------------------------------------------------------------------------------ liveness

    def liveness(self, entry: Registration, now: float) -> Liveness:
        """Judge the producer of a registration: by its lock where that can be seen, else by its heartbeats."""
        verdict = judge(self._probe, entry, now)
        return "dead" if verdict == "closed" else verdict

    def tick(self, now: float) -> list[Outgoing]:
        """Let the time pass: channels of producers that have been dead for a while are removed, with their segments.

        Returns
        -------
        list of Outgoing
            What the watchers are told of it.
        """
        self.watches.tick(now)
        if not self._to_probe:
            self._to_probe = self.registry.names()
        for name in self._to_probe[:PROBES_PER_TICK]:
            entry = self.registry.find_channel(name)
            if entry is None:
                continue
            self._readers.expire(entry, now)
            verdict = judge(self._probe, entry, now)
            if verdict not in ("dead", "closed"):
                self._revive(entry, now)
            elif verdict == "closed" and entry.closed_for(now) < CLOSING_GRACE:
                continue  # it deregisters next
            elif entry.dead_since is None:
                entry.dead_since = now
                facts = event("producer_died", channel=entry.channel_name, pid=entry.producer_pid)
                logger.warning(
                    "the producer of %s, process %d, died", entry.channel_name, entry.producer_pid, extra=facts
                )
                self._tell(EventKind.PRODUCER_DIED, entry)
            elif now - entry.dead_since >= TAKEOVER_GRACE:
                self._remove_dead(entry)
        del self._to_probe[:PROBES_PER_TICK]
        return self._told()

    def _revive(self, entry: Registration, now: float) -> None:
        """Take a death back, if one was told: the client was only cut off from the broker for a while."""
        entry.closed_since = None
        if entry.dead_since is not None:
            entry.dead_since = None
            self._tell(EventKind.APPEARED, entry, now, entry.is_back)

    def close(self, now: float) -> None:
        """Remove everything that dead producers left, without waiting for a takeover: the broker stops."""
        for entry in self.registry:
            if self.liveness(entry, now) == "dead":
                self._remove_dead(entry)

    def _remove_dead(self, entry: Registration) -> None:
        self._bury(entry)
        self._readers.forget(entry)
        self._forget(entry)
        self._tell(EventKind.GONE, entry, detail=f"its producer, process {entry.producer_pid}, died")
        logger.info(
            "channel %s removed: nobody took it over",
            entry.channel_name,
            extra=event("channel_removed", channel=entry.channel_name, pid=entry.producer_pid),
        )
