"""What a Messenger can ask a broker once it is connected."""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar, cast

from labhub.bound import Bound
from labhub.errors import BrokerUnreachable, ChannelNotFound, ForkedProcessError, InvalidArgument, LabHubError
from labhub.messenger.info import ConsumerInfo, Metrics
from labhub.messenger.worker import Worker
from labhub.names import check_name
from labhub.protocol.client_state import UNANSWERED, Done, Sink
from labhub.protocol.messages import (
    ChannelEntry,
    ChecksumErrorReq,
    DiscAck,
    DiscReq,
    ListAck,
    ListReq,
    Message,
    MetricsAck,
    MetricsReportReq,
    MetricsReq,
    SchemaAck,
    SchemaReq,
    UnwatchReq,
    WatchAck,
    WatchReq,
)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

REPLY_TIMEOUT = 5.0
"""How long a request waits for its reply unless told otherwise (in seconds)."""
LIST_ATTEMPTS = 5
"""How often a directory that changes while it is read is read again."""


class Questions(Bound):
    """The requests of a connected client. `Messenger` connects it, and registers with it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._worker: Worker | None = None

    def _instead(self) -> str:
        return "in the other process, make another one, and connect it"

    def discover_producer(self, channel: str, timeout_ms: int = 5000) -> ConsumerInfo | None:
        """Ask where a channel is.

        Parameters
        ----------
        channel : str
        timeout_ms : int
            How long to wait for the broker (in milliseconds).

        Returns
        -------
        ConsumerInfo or None
            None if the channel is unknown, or the broker does not answer in time.
        """
        request = DiscReq(channel_name=check_name(channel))
        try:
            reply = self._call(request, DiscAck, timeout_ms / 1000)
        except (ChannelNotFound, BrokerUnreachable):
            if self._worker is None:
                raise
            return None
        return ConsumerInfo(reply.shm_name, bytes.fromhex(reply.schema_hash), reply.schema_version, reply.metadata)

    def list_channels(self, pattern: str = "*", timeout: float = REPLY_TIMEOUT) -> list[ChannelEntry]:
        """Return the channels whose names match a shell pattern, in the order of their names.

        Raises
        ------
        BrokerUnreachable
            If the broker does not answer within `timeout` (in seconds).
        InvalidArgument
            If the pattern is not a text of 1 to 256 characters.
        """
        return self.read_directory(pattern, timeout)[0]

    def read_directory(self, pattern: str = "*", timeout: float = REPLY_TIMEOUT) -> tuple[list[ChannelEntry], int]:
        """Return `list_channels`, and the version of the directory that this was.

        Events of that version or an earlier one are in the list already. A directory that changes while its pages are
        read is read again, a few times; one that never rests gives the version before the first page.
        """
        check_pattern(pattern)
        for _ in range(LIST_ATTEMPTS):
            found: dict[str, ChannelEntry] = {}
            versions = []
            offset = 0
            while offset >= 0:
                page = self._call(ListReq(pattern=pattern, offset=offset), ListAck, timeout)
                found |= {entry.channel_name: entry for entry in page.channels}
                versions.append(page.version)
                offset = page.next_offset
            if versions[0] == versions[-1]:
                break
        return [found[name] for name in sorted(found)], versions[0]

    def query(self, channel: str, timeout: float = REPLY_TIMEOUT) -> ChannelEntry | None:
        """Return everything that the broker knows of one channel, or None; raises as `list_channels`."""
        page = self._call(ListReq(pattern=check_name(channel)), ListAck, timeout)
        return next((c for c in page.channels if c.channel_name == channel), None)

    def query_schema(self, channel: str, timeout: float = REPLY_TIMEOUT) -> str | None:
        """Ask for the schema of a channel.

        Returns
        -------
        str or None
            Canonical JSON, as `Schema.from_json` reads it; None if the producer declared none.

        Raises
        ------
        ChannelNotFound
            If nobody registered the channel.
        BrokerUnreachable
            If the broker does not answer within `timeout` (in seconds).
        """
        return self._call(SchemaReq(channel_name=check_name(channel)), SchemaAck, timeout).schema

    def report_metrics(
        self, channel: str, metrics: Mapping[str, float], producer_pid: int | None = None
    ) -> Future[None]:
        """Report numbers about a channel that this client registered; they replace those of the report before.

        Parameters
        ----------
        channel : str
        metrics : mapping of str to float
            At most 100 finite numbers, with names of at most 256 characters.
        producer_pid : int, optional
            That of the registration; this process unless given.

        Returns
        -------
        Future of None
            Raises, where it is looked at, `ChannelNotFound` if this client and pid did not register the channel.

        Raises
        ------
        InvalidArgument
            If the numbers are too many, not numbers, or not finite.
        """
        pid = os.getpid() if producer_pid is None else producer_pid
        return self._tell(
            MetricsReportReq(channel_name=check_name(channel), producer_pid=pid, metrics=_checked_metrics(metrics))
        )

    def query_metrics(self, channel: str | None = None, timeout: float = REPLY_TIMEOUT) -> Metrics:
        """Ask for the numbers that the owner of a channel reported; without a channel, for the broker's own.

        The broker's are ``channels`` and ``watches`` now, ``registrations``, ``events``, ``checksum_errors`` and
        ``ignored`` messages since its start, ``refused.<code>`` for each error that it answered with, and ``uptime_s``;
        ``handshakes_rejected``, ``settings_reads``, and ``settings_refused``: 1 while its settings file is broken or
        gone, and older settings hold.

        Raises
        ------
        ChannelNotFound
            If nobody registered the channel.
        BrokerUnreachable
            If the broker does not answer within `timeout` (in seconds).
        """
        name = None if channel is None else check_name(channel)
        reply = self._call(MetricsReq(channel_name=name), MetricsAck, timeout)
        return Metrics(reply.metrics, None if reply.age_s < 0 else reply.age_s)

    def report_checksum_error(self, channel: str, seq: int) -> Future[None]:
        """Tell the broker, and through it whoever watches, that a slot does not match its checksum.

        Returns
        -------
        Future of None
            Raises, where it is looked at, `ChannelNotFound` if nobody registered the channel.
        """
        if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq < 2**63:
            raise InvalidArgument(f"a seq is a whole number of at least 0, not {seq!r}")
        return self._tell(ChecksumErrorReq(channel_name=check_name(channel), consumer_pid=os.getpid(), seq=seq))

    def watch(self, pattern: str, sink: Sink, timeout: float = REPLY_TIMEOUT) -> str:
        """Ask for the events of the channels whose names match a shell pattern. `Hub.watch` is the friendlier form.

        The watch is kept up until `unwatch` or `disconnect`, with another broker process, too.

        Parameters
        ----------
        pattern : str
        sink : callable
            Called in the worker's thread, and must return at once: with a `Gap` first, with each `Event` then, and with
            a `Gap` whenever some were lost.
        timeout : float
            How long to wait for the confirmation (in seconds).

        Returns
        -------
        str
            What `unwatch` wants to know.

        Raises
        ------
        QuotaExceeded
            If this client's key has as many watches as it may.
        BrokerUnreachable, InvalidArgument
        """
        request = WatchReq(watch_id=uuid.uuid4().hex, pattern=check_pattern(pattern))
        future: Future[WatchAck] = Future()
        try:
            self._connected().watch(request, sink, timeout, _settle(future))
            self._result(future, timeout)
        except BaseException:
            self.unwatch(request.watch_id)
            raise
        return request.watch_id

    def unwatch(self, watch_id: str) -> None:
        """End a watch. Nobody waits for the broker's answer; twice is harmless."""
        if self._worker is None or self._pid != os.getpid():
            return
        with contextlib.suppress(BrokerUnreachable):  # disconnected this very moment
            self._worker.ask(UnwatchReq(watch_id=watch_id), REPLY_TIMEOUT, _ignore)

    def _tell(self, message: Message) -> Future[None]:
        future: Future[None] = Future()

        self._connected().ask(message, REPLY_TIMEOUT, lambda outcome: settle(future, outcome, None))
        return future

    def _call(self, message: Message, reply: type[M], timeout: float) -> M:
        future: Future[M] = Future()
        self._connected().ask(message, timeout, _settle(future))
        return self._result(future, timeout)

    @staticmethod
    def _result(future: Future[M], timeout: float) -> M:
        try:
            return future.result(timeout + 1.0)
        except FutureTimeout:
            raise BrokerUnreachable(f"the broker did not answer within {timeout:g} s", advice=UNANSWERED) from None

    def _connected(self) -> Worker:
        self._check_fork()
        if self._worker is None:
            raise BrokerUnreachable("there is no connection to a broker yet, or any more; call connect() first")
        return self._worker

    def _check_fork(self) -> None:
        if self._pid != os.getpid():
            raise ForkedProcessError("this connection belongs to the parent process; call connect() in the child")


def check_pattern(pattern: object) -> str:
    """Return `pattern` if it can be a shell pattern of channel names.

    Raises
    ------
    InvalidArgument
        Otherwise.
    """
    if not isinstance(pattern, str) or not 0 < len(pattern) <= 256:
        raise InvalidArgument(f"a pattern is a text of 1 to 256 characters such as 'pump.*', not {pattern!r}")
    return pattern


def _checked_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    try:
        checked = {name: float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"metrics are a mapping of names to numbers, not {metrics!r:.200}") from None
    for name, value in checked.items():
        if not isinstance(name, str) or len(name) > 256 or not math.isfinite(value):
            raise InvalidArgument(f"a metric is a finite number with a name of at most 256 characters: {name!r:.80}")
    if len(checked) > 100:
        raise InvalidArgument(f"at most 100 metrics go into one report, not {len(checked)}")
    return checked


def _settle(future: Future[M]) -> Done:
    """Return what hands a reply, or the error instead of it, to a future."""

    def done(outcome: Message | LabHubError) -> None:
        settle(future, outcome, cast("M", outcome))  # requests and replies are paired

    return done


def settle(future: Future[T], outcome: Message | LabHubError, result: T) -> None:
    """Give a future its result, or the error instead of it; none if whoever asked has cancelled it."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, LabHubError):
            future.set_exception(outcome)
        else:
            future.set_result(result)


def _ignore(_outcome: Message | LabHubError) -> None:
    return
