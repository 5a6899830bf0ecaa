"""A client's side of every conversation, as a state machine: what was asked, what is registered, what is due."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from labhub.errors import (
    AuthenticationError,
    BrokerUnreachable,
    ChannelBusy,
    ChannelNotFound,
    LabHubError,
    ProtocolError,
    SchemaMismatch,
)
from labhub.protocol import codec
from labhub.protocol.messages import (
    HEARTBEAT_INTERVAL,
    REPLY_TO,
    ConsumerDeregReq,
    ConsumerRegReq,
    DeregReq,
    Error,
    ErrorCode,
    HeartbeatAck,
    HeartbeatReq,
    Message,
    RegReq,
)

logger = logging.getLogger(__name__)

Done = Callable[[Message | LabHubError], None]

SILENCE = 2 * HEARTBEAT_INTERVAL
"""After how long without any reply a broker that was asked something counts as lost (in seconds)."""

ERROR_OF: dict[str, type[LabHubError]] = {
    ErrorCode.SCHEMA_MISMATCH: SchemaMismatch,
    ErrorCode.CHANNEL_BUSY: ChannelBusy,
    ErrorCode.CHANNEL_NOT_FOUND: ChannelNotFound,
    ErrorCode.NOT_REGISTERED: ChannelNotFound,
    ErrorCode.UNAUTHORIZED: AuthenticationError,
}
"""What a refusal raises; all others raise `ProtocolError`."""


@dataclass
class _Pending:
    request: Message
    deadline: float
    done: Done


class ClientState:
    """What a Messenger knows."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        self._last_id = 0
        self._registered: dict[str, RegReq] = {}
        self._reading: dict[tuple[str, int], ConsumerRegReq] = {}
        self._next_heartbeat = 0.0
        self._asked_at: float | None = None  # the oldest request since the last reply

    def request(self, message: Message, now: float, timeout: float, done: Done) -> list[bytes]:
        """Ask; the frames to send. `done` gets the reply, or the error that a refusal or a timeout amounts to.

        Raises
        ------
        ProtocolError
            If the message cannot be sent as JSON.
        """
        self._last_id += 1
        correlation = str(self._last_id)
        frames = codec.encode(msgspec.structs.replace(message, correlation_id=correlation))
        self._pending[correlation] = _Pending(message, now + timeout, done)
        if self._asked_at is None:
            self._asked_at = now
        self._note(message)
        return frames

    def _note(self, message: Message) -> None:
        """Remember what must be said again to a broker that restarted."""
        match message:
            case RegReq():
                self._registered[message.channel_name] = message
            case DeregReq():
                self._registered.pop(message.channel_name, None)
            case ConsumerRegReq():
                self._reading[message.channel_name, message.consumer_pid] = message
            case ConsumerDeregReq():
                self._reading.pop((message.channel_name, message.consumer_pid), None)

    def receive(self, frames: Sequence[bytes], now: float) -> list[list[bytes]]:
        """Take one message of the broker; return frames to send. What is no reply to a pending request is dropped."""
        try:
            reply = codec.decode(codec.split(frames))
        except ProtocolError as error:
            logger.warning("dropped a message that is none: %s", error)
            return []
        self._asked_at = None
        pending = self._pending.pop(str(reply.correlation_id), None)
        if pending is None:
            return []  # late, or of a broker that does not echo: nobody waits for it
        if isinstance(reply, Error):
            self._refused(pending, reply)
        elif type(reply) is REPLY_TO[type(pending.request)]:
            pending.done(reply)
        else:
            pending.done(
                ProtocolError(f"the broker answered {type(pending.request).__name__} with {type(reply).__name__}")
            )
        if isinstance(reply, HeartbeatAck):
            return [self._again(self._registered[name], now) for name in reply.unknown if name in self._registered]
        return []

    def _refused(self, pending: _Pending, reply: Error) -> None:
        request = pending.request
        if isinstance(request, RegReq) and self._registered.get(request.channel_name) is request:
            del self._registered[request.channel_name]
        kind = ERROR_OF.get(reply.error_code, ProtocolError)
        channel = getattr(request, "channel_name", "")
        pending.done(kind(reply.message, code=reply.error_code, channel=channel))

    def _again(self, message: Message, now: float) -> list[bytes]:
        """Say something once more, unasked; a refusal is logged, as nobody waits for it."""

        def done(outcome: Message | LabHubError) -> None:
            if isinstance(outcome, LabHubError):
                logger.error("could not register %s again: %s", getattr(message, "channel_name", "?"), outcome)

        return self.request(message, now, HEARTBEAT_INTERVAL, done)

    def reconnected(self, now: float) -> list[list[bytes]]:
        """Return what to say to a broker that is new, or has lost its memory: everything that is registered."""
        self._asked_at = None
        self._next_heartbeat = now + HEARTBEAT_INTERVAL
        return [self._again(message, now) for message in [*self._registered.values(), *self._reading.values()]]

    def tick(self, now: float) -> list[list[bytes]]:
        """Let the time pass; return frames to send: heartbeats that are due."""
        for correlation in [c for c, p in self._pending.items() if p.deadline <= now]:
            pending = self._pending.pop(correlation)
            pending.done(BrokerUnreachable(f"the broker did not answer {type(pending.request).__name__} in time"))
        if not self._registered or now < self._next_heartbeat:
            return []
        self._next_heartbeat = now + HEARTBEAT_INTERVAL
        by_pid: dict[int, list[str]] = {}
        for name, request in self._registered.items():
            by_pid.setdefault(request.producer_pid, []).append(name)
        return [
            self.request(HeartbeatReq(producer_pid=pid, channels=names[k : k + 500]), now, SILENCE, _ignore)
            for pid, names in by_pid.items()
            for k in range(0, len(names), 500)
        ]

    def lost(self, now: float) -> bool:
        """Whether the broker has left questions unanswered for too long."""
        return self._asked_at is not None and now - self._asked_at > SILENCE

    def fail_all(self, error: LabHubError) -> None:
        """End all pending requests."""
        pending, self._pending = self._pending, {}
        for p in pending.values():
            p.done(error)

    def forget(self) -> None:
        """Forget what is registered: nothing will be said again."""
        self._registered.clear()
        self._reading.clear()

    @property
    def registered(self) -> tuple[str, ...]:
        """Names of the registered channels."""
        return tuple(self._registered)


def _ignore(_outcome: Message | LabHubError) -> None:
    return
