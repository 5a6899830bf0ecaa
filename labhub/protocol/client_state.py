"""A client's side of every conversation, as a state machine: what was asked, what is registered, what is due."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from labhub.errors import (
    AccessDenied,
    AuthenticationError,
    BrokerUnreachable,
    ChannelBusy,
    ChannelNotFound,
    LabHubError,
    ProtocolError,
    QuotaExceeded,
    SchemaMismatch,
)
from labhub.logs import event, get_logger
from labhub.protocol import codec
from labhub.protocol.messages import (
    HEARTBEAT_INTERVAL,
    MAX_MESSAGE_NBYTES,
    REPLY_TO,
    ChecksumErrorReq,
    ConsumerDeregReq,
    ConsumerRegReq,
    DeregReq,
    DiscReq,
    Error,
    ErrorCode,
    Event,
    HeartbeatAck,
    HeartbeatReq,
    ListReq,
    Message,
    MetricsReportReq,
    MetricsReq,
    RegReq,
    SchemaReq,
    UnwatchReq,
    WatchAck,
    WatchReq,
)
from labhub.telling import Advice

logger = get_logger(__name__)

UNANSWERED = Advice(
    "; data flows on without it. `labhub doctor` finds out whether it still runs",
    shell="; `labhub doctor` finds out whether it still runs",
    notebook="; data flows on without it. %hub_doctor finds out whether it still runs",
)

Done = Callable[[Message | LabHubError], None]

HEARTBEAT_CHANNELS = 400
"""So many channels are named in one heartbeat, which keeps it below the longest message whatever they are called."""
MAX_PENDING = 10_000
"""So many requests may be without an answer at once; one more is refused here."""

ERROR_OF: dict[str, type[LabHubError]] = {
    ErrorCode.SCHEMA_MISMATCH: SchemaMismatch,
    ErrorCode.CHANNEL_BUSY: ChannelBusy,
    ErrorCode.CHANNEL_NOT_FOUND: ChannelNotFound,
    ErrorCode.NOT_REGISTERED: ChannelNotFound,
    ErrorCode.UNAUTHORIZED: AuthenticationError,
    ErrorCode.QUOTA_EXCEEDED: QuotaExceeded,
    ErrorCode.ACCESS_DENIED: AccessDenied,
}
"""What a refusal raises; all others raise `ProtocolError`."""


ASKED: dict[type[Message], str] = {
    RegReq: "to register {}",
    DiscReq: "where {} is",
    DeregReq: "to withdraw {}",
    HeartbeatReq: "for a sign of life",
    ListReq: "for its channels",
    ConsumerRegReq: "to note a reader of {}",
    ConsumerDeregReq: "to forget a reader of {}",
    SchemaReq: "for the schema of {}",
    MetricsReportReq: "to note the metrics of {}",
    MetricsReq: "for its metrics",
    ChecksumErrorReq: "to tell of a corrupt slot of {}",
    WatchReq: "to watch its channels",
    UnwatchReq: "to end a watch",
}
"""What each request asks the broker, in words; braces stand for its channel."""


def asked(request: Message) -> str:
    """Return what a request asks the broker, in words."""
    channel = getattr(request, "channel_name", None)
    return ASKED[type(request)].format("a channel" if channel is None else f"channel {channel!r}")


@dataclass(frozen=True)
class Gap:
    """Events were lost, or may have been: a list tells what is there.

    Attributes
    ----------
    anew : bool
        The broker did not know the watch: it has just begun, or the broker was restarted and is being told of its
        channels again.
    """

    anew: bool


Sink = Callable[[Event | Gap], None]
"""Takes what a watch brings, in order; begins with a `Gap`."""


@dataclass
class _Watching:
    request: WatchReq
    sink: Sink
    next_serial: int = -1  # not confirmed yet


@dataclass
class _Pending:
    request: Message
    timeout: float
    deadline: float
    done: Done


class ClientState:
    """What a Messenger knows."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._last_id = 0
        self._registered: dict[str, RegReq] = {}
        self._rejected: dict[str, str] = {}
        self._reading: dict[tuple[str, int], ConsumerRegReq] = {}
        self._watching: dict[str, _Watching] = {}
        self._next_heartbeat = 0.0

    def request(self, message: Message, now: float, timeout: float, done: Done) -> list[bytes]:
        """Ask; the frames to send. `done` gets the reply, or the error that a refusal or a timeout amounts to.

        Raises
        ------
        ProtocolError
            If the message cannot be sent as JSON, or is longer than a broker takes.
        BrokerUnreachable
            If too many requests wait for an answer already.
        """
        if len(self._pending) >= MAX_PENDING:
            raise BrokerUnreachable(f"{MAX_PENDING} requests wait for the broker's answer; ask less, or later")
        self._last_id += 1
        correlation = str(self._last_id)
        frames = codec.encode(msgspec.structs.replace(message, correlation_id=correlation))
        if len(frames[-1]) > MAX_MESSAGE_NBYTES:
            raise ProtocolError(
                f"the request {asked(message)} has {len(frames[-1])} bytes, and a broker takes {MAX_MESSAGE_NBYTES}; "
                "shorten its metadata: attrs, units or names of fields"
            )
        self._pending[correlation] = _Pending(message, timeout, now + timeout, done)
        self._note(message)
        return frames

    def watch(self, request: WatchReq, sink: Sink, now: float, timeout: float, done: Done) -> list[bytes]:
        """Begin a watch, and keep it up until an `UnwatchReq` is sent; the frames to send.

        `sink` gets a `Gap` with the confirmation, then events, and a `Gap` whenever some were lost.
        """

        def begun(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, LabHubError):
                self._watching.pop(request.watch_id, None)
            done(outcome)

        frames = self.request(request, now, timeout, begun)
        self._watching[request.watch_id] = _Watching(request, sink)
        return frames

    def _note(self, message: Message) -> None:
        """Remember what must be said again to a broker that restarted."""
        match message:
            case RegReq():
                self._registered[message.channel_name] = message
                self._rejected.pop(message.channel_name, None)
            case DeregReq():
                self._rejected.pop(message.channel_name, None)
                self._registered.pop(message.channel_name, None)
            case ConsumerRegReq():
                self._reading[message.channel_name, message.consumer_pid] = message
            case ConsumerDeregReq():
                self._reading.pop((message.channel_name, message.consumer_pid), None)
            case UnwatchReq():
                self._watching.pop(message.watch_id, None)

    def receive(self, frames: Sequence[bytes], now: float) -> list[list[bytes]]:
        """Take one message of the broker; return frames to send.

        What is neither an event nor the reply to a pending request is dropped.
        """
        try:
            reply = codec.decode(codec.split(frames))
        except ProtocolError as error:
            logger.warning(
                "dropped a message that is none: %s", error, extra=event("message_dropped", reason=str(error))
            )
            return []
        if isinstance(reply, Event):
            self._happened(reply)
            return []
        pending = self._pending.pop(str(reply.correlation_id), None)
        if pending is None:
            return []  # late, or of a broker that does not echo: nobody waits for it
        if isinstance(reply, Error):
            self._refused(pending, reply)
        elif type(reply) is REPLY_TO[type(pending.request)]:
            if isinstance(pending.request, WatchReq) and isinstance(reply, WatchAck):
                self._confirmed(pending.request, reply)
            pending.done(reply)
        else:
            pending.done(
                ProtocolError(
                    f"the broker was asked {asked(pending.request)}, and its answer is that to another question; does "
                    "it run this version of labhub? `labhub doctor` compares them"
                )
            )
        if isinstance(reply, HeartbeatAck):
            return [self._again(self._registered[name], now) for name in reply.unknown if name in self._registered]
        return []

    def _happened(self, event: Event) -> None:
        watching = self._watching.get(event.watch_id)
        if watching is None or not 0 <= watching.next_serial <= event.serial:
            return  # of a watch that was ended, or is not confirmed yet
        if event.serial > watching.next_serial:
            watching.sink(Gap(anew=False))
        watching.next_serial = event.serial + 1
        watching.sink(event)

    def _confirmed(self, request: WatchReq, reply: WatchAck) -> None:
        watching = self._watching.get(request.watch_id)
        if watching is None:
            return
        if not reply.renewed or reply.next_serial != watching.next_serial:
            watching.next_serial = reply.next_serial
            watching.sink(Gap(anew=not reply.renewed))

    def _refused(self, pending: _Pending, reply: Error) -> None:
        request = pending.request
        if isinstance(request, RegReq) and self._registered.get(request.channel_name) is request:
            del self._registered[request.channel_name]
            self._rejected[request.channel_name] = reply.message
        kind = ERROR_OF.get(reply.error_code, ProtocolError)
        details = reply.details or {}
        facts: dict[str, Any] = {fact: details.get(fact, "") for fact in ("key", "channel", "right", "grant")}
        facts = facts if kind is AccessDenied else {"channel": getattr(request, "channel_name", "")}
        pending.done(kind(reply.message, code=reply.error_code, **facts))

    def _again(self, message: Message, now: float) -> list[bytes]:
        """Say something once more, unasked; a refusal is logged, as nobody waits for it."""

        def done(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, LabHubError):
                # A reader's or a watcher's is repeated soon, and a reader may be there before its producer is.
                level = logging.ERROR if isinstance(message, RegReq) else logging.DEBUG
                name = getattr(message, "channel_name", "a watch")
                facts = event("registration_lost", channel=name, reason=str(outcome))
                logger.log(level, "could not register %s again: %s", name, outcome, extra=facts)

        return self.request(message, now, HEARTBEAT_INTERVAL, done)

    def _renewals(self) -> list[Message]:
        return [*self._reading.values(), *(w.request for w in self._watching.values() if w.next_serial >= 0)]

    def reconnected(self, now: float) -> list[list[bytes]]:
        """Return what to say to a broker that is new, or has lost its memory: everything that is registered."""
        self._next_heartbeat = now + HEARTBEAT_INTERVAL
        return [self._again(message, now) for message in [*self._registered.values(), *self._renewals()]]

    def tick(self, now: float, *, connected: bool = True) -> list[list[bytes]]:
        """Let the time pass; return frames to send: what is due with every heartbeat, while `connected`."""
        for correlation in [c for c, p in self._pending.items() if p.deadline <= now]:
            pending = self._pending.pop(correlation)
            pending.done(
                BrokerUnreachable(
                    f"the broker did not answer within {pending.timeout:g} s when asked {asked(pending.request)}",
                    advice=UNANSWERED,
                )
            )
        if not connected or now < self._next_heartbeat:
            return []
        renewals = self._renewals()
        if not self._registered and not renewals:
            return []
        self._next_heartbeat = now + HEARTBEAT_INTERVAL
        by_pid: dict[int, list[str]] = {}
        for name, request in self._registered.items():
            by_pid.setdefault(request.producer_pid, []).append(name)
        beats = [
            HeartbeatReq(producer_pid=pid, channels=names[k : k + HEARTBEAT_CHANNELS])
            for pid, names in by_pid.items()
            for k in range(0, len(names), HEARTBEAT_CHANNELS)
        ]
        return [self._again(message, now) for message in [*beats, *renewals]]

    def fail_all(self, error: LabHubError) -> None:
        """End all pending requests."""
        pending, self._pending = self._pending, {}
        for p in pending.values():
            p.done(error)

    @property
    def registered(self) -> tuple[str, ...]:
        """Names of the registered channels."""
        return tuple(self._registered)

    @property
    def rejected(self) -> dict[str, str]:
        """Why the broker refused channels, by their names, until they are registered or withdrawn."""
        return dict(self._rejected)
