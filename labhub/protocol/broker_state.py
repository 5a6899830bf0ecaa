"""The broker's side of every conversation, as a state machine: messages and the time go in, messages come out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from labhub.errors import ProtocolError
from labhub.protocol import codec
from labhub.protocol.messages import (
    HEARTBEAT_EXPIRY,
    HEARTBEAT_INTERVAL,
    MAX_MESSAGE_NBYTES,
    TAKEOVER_GRACE,
    ChannelEntry,
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
    HeartbeatAck,
    HeartbeatReq,
    ListAck,
    ListReq,
    Message,
    RegAck,
    RegReq,
)
from labhub.protocol.registry import ChannelRegistry, Registration

logger = logging.getLogger(__name__)

Liveness = Literal["alive", "stalled", "dead", "unknown"]
PROBES_PER_TICK = 200


@dataclass(frozen=True)
class Peer:
    """Who sent a message: the routing id of the connection, and the client's key (z85; empty without CURVE)."""

    routing_id: bytes
    key: str = ""


@dataclass(frozen=True)
class Outgoing:
    """Frames to send to one connection."""

    routing_id: bytes
    frames: list[bytes]


class BrokerState:
    """What the broker knows, and the rules about who may change it.

    Parameters
    ----------
    probe : callable
        Judges the producer of a registration by its segment: ``"alive"``, ``"dead"`` or ``"unknown"``.
    bury : callable
        Removes the segment of a registration whose producer is provably dead.
    allowed : callable
        Whether a client key is on the allow-list now; asked for every request.
    max_channels_per_key : int
        Quota.
    """

    def __init__(
        self,
        probe: Callable[[Registration], Literal["alive", "dead", "unknown"]],
        bury: Callable[[Registration], object] = lambda _: None,
        allowed: Callable[[str], bool] = lambda _: True,
        max_channels_per_key: int = 20_000,
    ) -> None:
        self.registry = ChannelRegistry()
        self.ignored = 0  # messages that could not even be answered
        self.refused: Counter[str] = Counter()  # answered with an error, by its code
        self._probe = probe
        self._bury = bury
        self._allowed = allowed
        self._quota = max_channels_per_key
        self._per_key: Counter[str] = Counter()
        self._to_probe: list[str] = []

    # ----------------------------------------------------------------------------------------------------- receiving

    def receive(self, peer: Peer, frames: Sequence[bytes], now: float) -> list[Outgoing]:
        """Take one message, as the frames behind the routing id; return what to send.

        Never raises on what a peer sends: what cannot be understood is answered with ``ERROR``. Only what a client
        without a valid key sends is dropped, and counted in `ignored`, if it is no message at all.
        """
        envelope = None
        try:
            if sum(map(len, frames)) > 2 * MAX_MESSAGE_NBYTES:
                raise ProtocolError("the message is too long", marked=False)
            envelope = codec.split(frames)
            request = codec.decode(envelope)
            if not self._allowed(peer.key):
                raise ProtocolError("this client's key is not on the allow-list", code=ErrorCode.UNAUTHORIZED.value)
            reply = self._answer(peer, request, now)
        except ProtocolError as error:
            marked = envelope.marked if envelope else getattr(error, "marked", False)
            return self._refuse(peer, error, envelope, marked=marked)
        reply = msgspec.structs.replace(reply, correlation_id=request.correlation_id)
        return [Outgoing(peer.routing_id, codec.encode(reply, marked=envelope.marked))]

    def _refuse(
        self, peer: Peer, error: ProtocolError, envelope: codec.Envelope | None, *, marked: bool
    ) -> list[Outgoing]:
        self.refused[error.code] += 1
        if envelope is None and not self._allowed(peer.key):
            self.ignored += 1
            return []
        logger.debug("refused: %s (%s)", error, error.code)
        correlation = codec.correlation_of(envelope) if envelope else None
        reply = Error(error_code=error.code, message=str(error), correlation_id=correlation or msgspec.UNSET)
        return [Outgoing(peer.routing_id, codec.encode(reply, marked=marked))]

    def _answer(self, peer: Peer, request: Message, now: float) -> Message:
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
                return self._list(request, now)
            case ConsumerRegReq():
                self._known(request.channel_name).consumers[peer.key, request.consumer_pid] = now
                return ConsumerRegAck()
            case ConsumerDeregReq():
                self._known(request.channel_name).consumers.pop((peer.key, request.consumer_pid), None)
                return ConsumerDeregAck()
        raise ProtocolError(f"{type(request).__name__} is a reply; a client sends requests")

    # --------------------------------------------------------------------------------------------------------- rules

    def _register(self, peer: Peer, request: RegReq, now: float) -> Message:
        new = Registration.of(request, peer.key, now)
        old = self.registry.find_channel(request.channel_name)
        if old is not None and self.liveness(old, now) != "dead" and not _succeeds(new, old):
            _require_same_owner(old, new)
            new.registered_at, new.heartbeat_at, new.consumers = old.registered_at, old.heartbeat_at, old.consumers
        elif (old is None or old.owner_key != peer.key) and self._per_key[peer.key] >= self._quota:
            raise ProtocolError(
                f"one client key may register {self._quota} channels; deregister some first",
                code=ErrorCode.QUOTA_EXCEEDED.value,
            )
        if old is not None:
            self._forget(old)
        self.registry.register_channel(request.channel_name, new)
        self._per_key[peer.key] += 1
        if old is None:
            logger.info("channel %s registered by process %d", new.channel_name, new.producer_pid)
        return RegAck(channel_id=request.channel_name)

    def _discover(self, request: DiscReq) -> Message:
        entry = self._known(request.channel_name)
        return DiscAck(
            shm_name=entry.shm_name,
            schema_hash=entry.schema_hash,
            schema_version=entry.schema_version,
            metadata=entry.metadata,
        )

    def _deregister(self, peer: Peer, request: DeregReq) -> Message:
        entry = self.registry.find_channel(request.channel_name)
        if entry is None or entry.owner_key != peer.key or entry.producer_pid != request.producer_pid:
            raise ProtocolError(
                f"Channel '{request.channel_name}' not registered or pid mismatch", code=ErrorCode.NOT_REGISTERED.value
            )
        self._forget(entry)
        logger.info("channel %s deregistered", entry.channel_name)
        return DeregAck()

    def _heartbeat(self, peer: Peer, request: HeartbeatReq, now: float) -> Message:
        unknown = []
        for name in request.channels:
            entry = self.registry.find_channel(name)
            if entry is None or entry.owner_key != peer.key or entry.producer_pid != request.producer_pid:
                unknown.append(name)
            else:
                entry.heartbeat_at = now
        return HeartbeatAck(unknown=unknown)

    def _list(self, request: ListReq, now: float) -> Message:
        names = [name for name in self.registry.names() if fnmatchcase(name, request.pattern)]
        page = names[request.offset : request.offset + request.limit]
        following = request.offset + len(page)
        return ListAck(
            channels=[self._entry(name, now) for name in page],
            total=len(names),
            next_offset=following if page and following < len(names) else -1,
        )

    def _entry(self, name: str, now: float) -> ChannelEntry:
        entry = self._known(name)
        return ChannelEntry(
            channel_name=name,
            shm_name=entry.shm_name,
            schema_hash=entry.schema_hash,
            schema_version=entry.schema_version,
            producer_pid=entry.producer_pid,
            producer_hostname=entry.producer_hostname,
            metadata=entry.metadata,
            liveness=self.liveness(entry, now),
            age_s=round(now - entry.registered_at, 3),
            consumers=len(entry.consumers),
        )

    def _known(self, channel: str) -> Registration:
        entry = self.registry.find_channel(channel)
        if entry is None:
            raise ProtocolError(f"Channel '{channel}' is not registered", code=ErrorCode.CHANNEL_NOT_FOUND.value)
        return entry

    def _forget(self, entry: Registration) -> None:
        self.registry.remove(entry.channel_name)
        self._per_key[entry.owner_key] -= 1
        if not self._per_key[entry.owner_key]:
            del self._per_key[entry.owner_key]

    # ------------------------------------------------------------------------------------------------------ liveness

    def liveness(self, entry: Registration, now: float) -> Liveness:
        """Judge the producer of a registration: by its lock where that can be seen, else by its heartbeats."""
        late = None if entry.heartbeat_at is None else now - entry.heartbeat_at
        match self._probe(entry), late:
            case "dead", _:
                return "dead"
            case "alive", float() if late > 2 * HEARTBEAT_INTERVAL:
                return "stalled"
            case "alive", _:
                return "alive"
            case _, None:
                return "unknown"
            case _, _:
                return "alive" if late <= HEARTBEAT_EXPIRY else "dead"

    def tick(self, now: float) -> list[Outgoing]:
        """Let the time pass: channels of producers that have been dead for a while are removed, with their segments."""
        if not self._to_probe:
            self._to_probe = self.registry.names()
        for name in self._to_probe[:PROBES_PER_TICK]:
            entry = self.registry.find_channel(name)
            if entry is None:
                continue
            if self.liveness(entry, now) != "dead":
                entry.dead_since = None
            elif entry.dead_since is None:
                entry.dead_since = now
            elif now - entry.dead_since >= TAKEOVER_GRACE:
                self._remove_dead(entry)
        del self._to_probe[:PROBES_PER_TICK]
        return []

    def close(self, now: float) -> None:
        """Remove everything that dead producers left, without waiting for a takeover: the broker stops."""
        for entry in self.registry:
            if self.liveness(entry, now) == "dead":
                self._remove_dead(entry)

    def _remove_dead(self, entry: Registration) -> None:
        self._bury(entry)
        self._forget(entry)
        logger.info("channel %s removed: its producer, process %d, died", entry.channel_name, entry.producer_pid)


def _succeeds(new: Registration, old: Registration) -> bool:
    """Whether the new registration is of a producer that took the same segment over."""
    instance = new.metadata.get("instance_id")
    if not instance or instance != old.metadata.get("instance_id"):
        return False
    mine, theirs = new.metadata.get("epoch"), old.metadata.get("epoch")
    return isinstance(mine, int) and isinstance(theirs, int) and mine > theirs


def _require_same_owner(old: Registration, new: Registration) -> None:
    if old.schema_hash != new.schema_hash:
        raise ProtocolError(
            f"Schema hash differs from existing registration for channel '{old.channel_name}'",
            code=ErrorCode.SCHEMA_MISMATCH.value,
        )
    if (old.owner_key, old.producer_pid, old.shm_name) != (new.owner_key, new.producer_pid, new.shm_name):
        raise ProtocolError(
            f"Channel '{old.channel_name}' is owned by process {old.producer_pid}"
            + (f" on {old.producer_hostname}" if old.producer_hostname else ""),
            code=ErrorCode.CHANNEL_BUSY.value,
        )
