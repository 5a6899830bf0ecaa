"""Every message, once. Requests are paired with their replies in `REPLY_TO`; error codes are one enum.

Field names and values of REG, DISC and DEREG are those of the reference guide; the others follow their style. Unknown
fields are tolerated in both directions. Of a key that occurs twice in one object the last one counts, as in Python's
json module; each must be what the field may hold.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
Hash = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{64}\Z")]
Pid = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Version = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Short = Annotated[str, Meta(max_length=256)]
Pattern = Annotated[str, Meta(min_length=1, max_length=256)]
Correlation = Annotated[str, Meta(max_length=64)]


class ErrorCode(StrEnum):
    """Why the broker refused a request."""

    SCHEMA_MISMATCH = "SCHEMA_MISMATCH"
    """The channel has a live owner, and its schema hash differs."""
    CHANNEL_BUSY = "CHANNEL_BUSY"
    """The channel has another live owner."""
    CHANNEL_NOT_FOUND = "CHANNEL_NOT_FOUND"
    """Nobody registered the channel."""
    NOT_REGISTERED = "NOT_REGISTERED"
    """Nothing is registered under this channel, pid and key."""
    INVALID_REQUEST = "INVALID_REQUEST"
    """The message cannot be understood."""
    UNAUTHORIZED = "UNAUTHORIZED"
    """The client's key is not (or no longer) on the allow-list."""
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    """This client key has as many channels, watches or registered consumers as one may, or its registrations are too
    long together, or so much waits for a connection that does not read it."""
    ACCESS_DENIED = "ACCESS_DENIED"
    """The access rules do not give the client's key the right that the request needs; ``Error.details`` says which."""


class Right(StrEnum):
    """What a client key may do with a channel."""

    PRODUCE = "produce"
    """Register it, keep it registered, report its numbers, take it back."""
    CONSUME = "consume"
    """See it in lists and events, ask where it is and for its schema, be counted as its reader."""
    ADMINISTER = "administer"
    """Ask for its numbers, and, where it is every channel, for the broker's own."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all messages; `correlation_id`, if a request has one, is echoed in its reply."""

    correlation_id: Correlation | UnsetType = UNSET


class RegReq(Message, frozen=True, kw_only=True):
    """Register a channel (producer to broker)."""

    channel_name: Name
    shm_name: Name
    schema_hash: Hash
    schema_version: Version
    producer_pid: Pid
    producer_hostname: Short = ""
    metadata: dict[str, Any] = {}


class RegAck(Message, frozen=True, kw_only=True):
    """The channel is registered."""

    status: str = "success"
    channel_id: str
    message: str = "Producer registered successfully"


class DiscReq(Message, frozen=True, kw_only=True):
    """Ask where a channel is (consumer to broker)."""

    channel_name: Name


class DiscAck(Message, frozen=True, kw_only=True):
    """Where it is."""

    status: str = "success"
    shm_name: str
    schema_hash: str
    schema_version: int
    metadata: dict[str, Any] = {}


class DeregReq(Message, frozen=True, kw_only=True):
    """Take a channel back (producer to broker)."""

    channel_name: Name
    producer_pid: Pid


class DeregAck(Message, frozen=True, kw_only=True):
    """The channel is gone."""

    status: str = "success"
    message: str = "Producer deregistered successfully"


class HeartbeatReq(Message, frozen=True, kw_only=True):
    """Say that the owner of these channels lives; every 2 seconds."""

    producer_pid: Pid
    channels: Annotated[list[Name], Meta(max_length=1000)] = []


class HeartbeatAck(Message, frozen=True, kw_only=True):
    """Heard. `unknown` names the channels that this broker does not have: register them again."""

    status: str = "success"
    unknown: list[str] = []


class ListReq(Message, frozen=True, kw_only=True):
    """Ask for channels whose names match a shell pattern, a page at a time."""

    pattern: Pattern = "*"
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ChannelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One registered channel, as the broker lists it.

    Attributes
    ----------
    liveness : {"alive", "stalled", "dead", "unknown"}
        What the broker knows of the producer; a stalled one holds its lock but sends no heartbeats.
    age_s : float
        Since the registration (in seconds).
    consumers : int
        How many consumers are registered.
    """

    channel_name: str
    shm_name: str
    schema_hash: str
    schema_version: int
    producer_pid: int
    producer_hostname: str = ""
    metadata: dict[str, Any] = {}
    liveness: str = "unknown"
    age_s: float = 0.0
    consumers: int = 0


class ListAck(Message, frozen=True, kw_only=True):
    """One page of channels, in the order of their names.

    Attributes
    ----------
    total : int
        How many match.
    next_offset : int
        Where the next page begins; -1 on the last page. A page ends at `ListReq.limit`, or when it is long enough.
    version : int
        Rises with every change of the directory. Pages of different versions may have missed a channel, or have it
        twice: ask again from the first page on.
    """

    status: str = "success"
    channels: list[ChannelEntry] = []
    total: int = 0
    next_offset: int = -1
    version: int = 0


class ConsumerRegReq(Message, frozen=True, kw_only=True):
    """Say that this client reads a channel; for the tools only. Repeated with every heartbeat, or it is forgotten."""

    channel_name: Name
    consumer_pid: Pid


class ConsumerRegAck(Message, frozen=True, kw_only=True):
    """Noted."""

    status: str = "success"
    message: str = "Consumer registered successfully"


class ConsumerDeregReq(Message, frozen=True, kw_only=True):
    """Say that it no longer does."""

    channel_name: Name
    consumer_pid: Pid


class ConsumerDeregAck(Message, frozen=True, kw_only=True):
    """Noted."""

    status: str = "success"
    message: str = "Consumer deregistered successfully"


class SchemaReq(Message, frozen=True, kw_only=True):
    """Ask for the schema of a channel."""

    channel_name: Name


class SchemaAck(Message, frozen=True, kw_only=True):
    """The schema as its producer declared it: canonical JSON text, or None if it declared none."""

    status: str = "success"
    channel_name: str
    schema_hash: str
    schema_version: int
    schema: str | None = None


class MetricsReportReq(Message, frozen=True, kw_only=True):
    """Report numbers about a channel (its owner to the broker); they replace those of the report before."""

    channel_name: Name
    producer_pid: Pid
    metrics: Annotated[dict[Short, float], Meta(max_length=100)]


class MetricsReportAck(Message, frozen=True, kw_only=True):
    """Noted."""

    status: str = "success"
    message: str = "Metrics reported successfully"


class MetricsReq(Message, frozen=True, kw_only=True):
    """Ask for the numbers of a channel; without a name, for those of the broker itself."""

    channel_name: Name | None = None


class MetricsAck(Message, frozen=True, kw_only=True):
    """The numbers, and how old the report is (in seconds; 0 for the broker's own, -1 if there was no report)."""

    status: str = "success"
    channel_name: str | None = None
    metrics: dict[str, float] = {}
    age_s: float = -1.0


class ChecksumErrorReq(Message, frozen=True, kw_only=True):
    """Tell that a slot did not match its checksum (consumer to broker); watchers get an `Event`."""

    channel_name: Name
    consumer_pid: Pid
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ChecksumErrorAck(Message, frozen=True, kw_only=True):
    """Noted."""

    status: str = "success"
    message: str = "Checksum error noted"


class WatchReq(Message, frozen=True, kw_only=True):
    """Ask for the events of channels whose names match a shell pattern; to be repeated with every heartbeat.

    `watch_id` is the client's name for the watch; the same one again, with the same pattern and on the same connection,
    renews it. A watch that is not renewed for `HEARTBEAT_EXPIRY` seconds ends by itself.
    """

    watch_id: Correlation
    pattern: Pattern = "*"


class WatchAck(Message, frozen=True, kw_only=True):
    """Watching.

    Attributes
    ----------
    next_serial : int
        Serial of the next event: one that is missing later was lost on the way.
    renewed : bool
        Whether the watch was there already. If not, events may have happened before it, and a list tells what is there.
    """

    status: str = "success"
    next_serial: int = 0
    renewed: bool = False


class UnwatchReq(Message, frozen=True, kw_only=True):
    """End a watch."""

    watch_id: Correlation


class UnwatchAck(Message, frozen=True, kw_only=True):
    """Ended, or never begun."""

    status: str = "success"


class EventKind(StrEnum):
    """What can happen to a channel."""

    APPEARED = "appeared"
    """It was registered. If it was there before, another producer has replaced its dead one or has taken its segment
    over, and `Event.detail` says so."""
    GONE = "gone"
    """It was deregistered, or removed after its producer's death."""
    SCHEMA = "schema"
    """It was there before, and is registered with another schema now."""
    PRODUCER_DIED = "producer_died"
    """Its producer is provably dead; it waits for a takeover."""
    CHECKSUM_ERROR = "checksum_error"
    """A consumer found a slot that does not match its checksum; `Event.detail` names the seq."""


class Event(Message, frozen=True, kw_only=True):
    """Something happened to a channel (broker to watcher, unasked; type ``EVENT``).

    Attributes
    ----------
    serial : int
        Counts the events of one watch from 0 on, without gaps.
    version : int
        Of the directory after the event: a list of this version, or a later one, has it in it already. A checksum error
        changes nothing in the directory.
    channel : ChannelEntry or None
        What is registered now, with ``appeared`` and ``schema``.
    """

    watch_id: str
    serial: int
    event: EventKind
    channel_name: str
    producer_pid: int = 0
    version: int = 0
    detail: str = ""
    channel: ChannelEntry | None = None


class Error(Message, frozen=True, kw_only=True):
    """A request was refused; sent with the type ``ERROR``.

    Attributes
    ----------
    details : dict of str to str or UNSET
        With ``ACCESS_DENIED``: ``key``, ``channel``, ``right`` and ``grant``, as in `labhub.errors.AccessDenied`.
    """

    status: str = "error"
    error_code: str
    message: str
    details: dict[str, str] | UnsetType = UNSET


TYPE_NAME: dict[type[Message], str] = {
    RegReq: "REG_REQ",
    RegAck: "REG_ACK",
    DiscReq: "DISC_REQ",
    DiscAck: "DISC_ACK",
    DeregReq: "DEREG_REQ",
    DeregAck: "DEREG_ACK",
    HeartbeatReq: "HEARTBEAT_REQ",
    HeartbeatAck: "HEARTBEAT_ACK",
    ListReq: "LIST_REQ",
    ListAck: "LIST_ACK",
    ConsumerRegReq: "CONSUMER_REG_REQ",
    ConsumerRegAck: "CONSUMER_REG_ACK",
    ConsumerDeregReq: "CONSUMER_DEREG_REQ",
    ConsumerDeregAck: "CONSUMER_DEREG_ACK",
    SchemaReq: "SCHEMA_REQ",
    SchemaAck: "SCHEMA_ACK",
    MetricsReportReq: "METRICS_REPORT_REQ",
    MetricsReportAck: "METRICS_REPORT_ACK",
    MetricsReq: "METRICS_REQ",
    MetricsAck: "METRICS_ACK",
    ChecksumErrorReq: "CHECKSUM_ERROR_REQ",
    ChecksumErrorAck: "CHECKSUM_ERROR_ACK",
    WatchReq: "WATCH_REQ",
    WatchAck: "WATCH_ACK",
    UnwatchReq: "UNWATCH_REQ",
    UnwatchAck: "UNWATCH_ACK",
    Event: "EVENT",
    Error: "ERROR",
}
"""Type frame of each message."""

REPLY_TO: dict[type[Message], type[Message]] = {
    RegReq: RegAck,
    DiscReq: DiscAck,
    DeregReq: DeregAck,
    HeartbeatReq: HeartbeatAck,
    ListReq: ListAck,
    ConsumerRegReq: ConsumerRegAck,
    ConsumerDeregReq: ConsumerDeregAck,
    SchemaReq: SchemaAck,
    MetricsReportReq: MetricsReportAck,
    MetricsReq: MetricsAck,
    ChecksumErrorReq: ChecksumErrorAck,
    WatchReq: WatchAck,
    UnwatchReq: UnwatchAck,
}
"""Reply of each request; any request may get an `Error` instead."""

RIGHT_FOR: dict[type[Message], Right] = {
    RegReq: Right.PRODUCE,
    DeregReq: Right.PRODUCE,
    MetricsReportReq: Right.PRODUCE,
    DiscReq: Right.CONSUME,
    ListReq: Right.CONSUME,
    WatchReq: Right.CONSUME,
    SchemaReq: Right.CONSUME,
    ConsumerRegReq: Right.CONSUME,
    ChecksumErrorReq: Right.CONSUME,
    MetricsReq: Right.ADMINISTER,
}
"""What a request needs. A heartbeat is answered for each channel by itself; to leave needs no right."""

HEARTBEAT_INTERVAL = 2.0
"""How often a client with registrations sends a heartbeat (in seconds)."""
HEARTBEAT_EXPIRY = 10.0
"""After how long without one a client that ever sent a heartbeat is taken for dead (in seconds)."""
TAKEOVER_GRACE = 10.0
"""How long the channel of a provably dead producer waits for a takeover before it is removed (in seconds)."""
CLOSING_GRACE = 2.0
"""How long a producer may take between the end of its segment and its deregistration (in seconds)."""
MAX_MESSAGE_NBYTES = 64 * 1024
"""Longest frame that the broker takes. Its replies may be longer."""
MAX_METADATA_DEPTH = 32
"""How deep the objects and lists of a registration's metadata may be nested, themselves included."""
MAX_PAGE_NBYTES = 1024 * 1024
"""A page of a list ends with the entry that makes it longer than this."""
