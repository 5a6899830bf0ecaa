"""The broker's directory as a hub uses it: find channels, attach to them, register and withdraw."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from labhub import liveness
from labhub.datablock.checksums import Findings
from labhub.datablock.consumer import DataBlockConsumer, Mode, Start, open_consumer
from labhub.datablock.producer import DataBlockProducer
from labhub.errors import (
    AccessDenied,
    BrokerUnreachable,
    ChannelBusy,
    ChannelNotFound,
    ForkedProcessError,
    LabHubError,
    ProtocolError,
    SchemaConflict,
    SchemaMismatch,
    SegmentTokenMismatch,
    TimeoutExpired,
)
from labhub.hub.channels import directory_of, schema_of
from labhub.hub.lease import Lease
from labhub.hub.mismatch import conflict, conflict_of, falsely_declared, unexpected
from labhub.logs import event
from labhub.messenger import Messenger, ProducerInfo
from labhub.names import check_one
from labhub.protocol.messages import ChannelEntry
from labhub.schema import Schema
from labhub.telling import Advice
from labhub.words import close_names, did_you_mean

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
# How often the broker is asked whether something has changed (in seconds).
POLL_INTERVAL = 0.05


class Directory:
    """Channels of one broker.

    Parameters
    ----------
    broker : str
        Name of the broker.
    messenger : Messenger
        Connected to it.
    """

    def __init__(self, broker: str, messenger: Messenger) -> None:
        self._broker = broker
        self._messenger = messenger
        # The broker counts a process as a reader of a channel or not, so only its first and last reader are told.
        self._readers: Counter[str] = Counter()
        # Of the looks at each channel, with the instance id of its segment: every look attaches anew.
        self._findings: dict[str, tuple[bytes, Findings]] = {}
        self._readers_lock = threading.RLock()

    def list(self, pattern: str, timeout: float) -> list[ChannelEntry]:
        """Channels whose names match a shell pattern, in the order of their names."""
        return self._messenger.list_channels(pattern, timeout)

    def find(self, channel: str, timeout: float) -> ChannelEntry:
        """What the broker knows of a channel.

        Raises
        ------
        ChannelNotFound
            Nothing; the message names the channels with the closest names.
        AccessDenied
            The broker's rules do not let this client consume it.
        """
        check_one(channel)
        entry = self._messenger.query(channel, timeout)
        if entry is None:
            raise self._not_found(channel, timeout)
        return entry

    def schema(self, channel: str, timeout: float) -> Schema | None:
        """What the producer of a channel declared; raises as `find`."""
        check_one(channel)
        try:
            text = self._messenger.query_schema(channel, timeout)
        except ChannelNotFound:
            raise self._not_found(channel, timeout) from None
        return schema_of({"schema": text})

    def conflict(self, channel: str, wanted: Schema, pid: int, timeout: float) -> SchemaConflict | None:
        """What a channel that process `pid` holds differs in from the wanted schema; None where that is not known."""
        try:
            return conflict(channel, wanted, schema_of({"schema": self._messenger.query_schema(channel, timeout)}), pid)
        except (AccessDenied, BrokerUnreachable, ChannelNotFound):
            return None

    def wait_for(self, channel: str, timeout: float | None) -> ChannelEntry:
        """Wait until a channel has a producer that is not dead.

        Raises
        ------
        TimeoutExpired
            It has none in time (in seconds; None waits for ever).
        """
        check_one(channel)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                entry = self._messenger.query(channel, timeout=min(1.0, left + POLL_INTERVAL))
                if entry is not None and entry.liveness != "dead":
                    return entry
                if left == 0.0:
                    why = "The producer that it had is dead." if entry else self._hint(channel, timeout=1.0)
            except BrokerUnreachable as error:
                why = f"The broker {self._broker!r} cannot be asked: {error.bare}."
            if left == 0.0:
                raise TimeoutExpired(f"channel {channel!r} did not appear within {timeout:g} s. {why}")
            time.sleep(POLL_INTERVAL)

    def register(self, block: DataBlockProducer, timeout: float, notes: Mapping[str, Any] | None = None) -> Lease:
        """Register a producer, with notes beside its metadata, and wait for the answer; a refused one is closed.

        Raises
        ------
        AccessDenied, ChannelBusy, SchemaMismatch, ProtocolError
            The broker refused it.
        BrokerUnreachable
            The broker did not answer in time (in seconds).
        """
        lease = Lease(block, lambda: self._sent(self._messenger.deregister_producer(block.name)))
        try:
            self._registration(block, notes).result(timeout)
        except (AccessDenied, ChannelBusy, SchemaMismatch, ProtocolError) as refusal:
            # Nothing of ours is registered, so nothing is withdrawn: under this name that could be somebody else's.
            block.close()
            if isinstance(refusal, SchemaMismatch):
                raise self._explained(block, refusal, timeout) from None
            raise
        except TimeoutError:
            lease.abandon()
            raise BrokerUnreachable(
                f"the broker {self._broker!r} did not confirm the channel {block.name!r} within {timeout:g} s"
            ) from None
        except BaseException:
            lease.abandon()
            raise
        return lease

    def amend(self, block: DataBlockProducer, notes: Mapping[str, Any]) -> Future[None]:
        """Put other notes beside the metadata of a producer that is registered; the broker's answer."""
        return self._registration(block, notes)

    def _registration(self, block: DataBlockProducer, notes: Mapping[str, Any] | None) -> Future[None]:
        info = ProducerInfo(
            shm_name=block.name,
            producer_pid=os.getpid(),
            schema_hash=block.schema.layout_hash,
            schema_version=SCHEMA_VERSION,
            metadata={**(notes or {}), **block.metadata(), **liveness.place_of(block.directory)},
        )
        return self._messenger.register_producer(block.name, info)

    def _explained(self, block: DataBlockProducer, refusal: SchemaMismatch, timeout: float) -> SchemaMismatch:
        """The broker's refusal with the fields that differ, where they are known."""
        try:
            entry = self._messenger.query(block.name, timeout)
        except (AccessDenied, BrokerUnreachable):
            return refusal
        if entry is None:
            return refusal
        pid = entry.producer_pid
        hashes = f"schema hash: {block.schema.layout_hash.hex()} here, {entry.schema_hash} there"
        found = conflict(block.name, block.schema, schema_of(entry.metadata), pid)
        return found or conflict_of(block.name, (hashes,), pid)

    def attach(
        self,
        channel: str,
        mode: Mode,
        start: Start,
        timeout: float,
        *,
        expected: Schema | None = None,
        counted: bool = True,
        busy_poll: bool = False,
    ) -> tuple[DataBlockConsumer, Lease]:
        """Find a channel and attach a reader to it.

        Raises
        ------
        ChannelNotFound
            The broker does not know it, or its segment is gone or not on this machine.
        SchemaMismatch
            It does not carry what is `expected`, or not what its producer has registered.
        """
        deadline = time.monotonic() + timeout
        while True:
            entry = self.find(channel, timeout)
            try:
                return self._attach_to(entry, mode, start, expected, counted, busy_poll)
            except (ChannelNotFound, SegmentTokenMismatch):
                # It was closed or replaced after the broker heard of it; the news arrives in a moment.
                if not _reachable(entry) or time.monotonic() > deadline:
                    raise self._segment_gone(entry) from None
            time.sleep(POLL_INTERVAL)

    def attach_to_successor(
        self, channel: str, mode: Mode, ended: bytes, expected: Schema | None, busy_poll: bool
    ) -> tuple[DataBlockConsumer, Lease] | None:
        """Attach to another incarnation of a channel than the one with the instance id `ended`; None if there is none.

        It is read from its first slot on, so that what was missed counts as lost.
        """
        try:
            entry = self._messenger.query(channel, timeout=1.0)
            if entry is None or entry.metadata.get("instance_id") in (None, ended.hex()):
                return None
            return self._attach_to(entry, mode, 0, expected, counted=True, busy_poll=busy_poll)
        except (AccessDenied, BrokerUnreachable, ChannelNotFound, SegmentTokenMismatch):
            return None

    def _attach_to(
        self, entry: ChannelEntry, mode: Mode, start: Start, expected: Schema | None, counted: bool, busy_poll: bool
    ) -> tuple[DataBlockConsumer, Lease]:
        declared = schema_of(entry.metadata)
        if expected is not None and (error := unexpected(entry, expected, declared)):
            raise error
        directory = _directory_of(entry)
        try:
            block = open_consumer(
                entry.shm_name,
                declared,
                directory=directory,
                mode=mode,
                start=start,
                instance_id=_instance_of(entry),
                busy_poll=busy_poll,
            )
        except SchemaMismatch:
            assert declared is not None  # raw bytes are not compared
            raise falsely_declared(entry, declared, directory) from None
        messenger, channel = self._messenger, entry.channel_name
        if not counted:
            self._share_findings(channel, block)
        block.tell_corrupt(lambda seq: _tell_corrupt(messenger, channel, seq))
        withdraw = self._count_reader(entry.channel_name) if counted else _nothing
        return block, Lease(block, withdraw)

    def _share_findings(self, channel: str, block: DataBlockConsumer) -> None:
        """Let one look at a channel know which slots the looks before it have found to be corrupt."""
        if block.findings is None:
            return
        instance, findings = self._findings.get(channel, (b"", None))
        if findings is not None and instance == block.instance_id:
            block.share_findings(findings)
        else:
            self._findings[channel] = block.instance_id, block.findings

    def _count_reader(self, channel: str) -> Callable[[], Future[None]]:
        with self._readers_lock:
            self._readers[channel] += 1
            if self._readers[channel] == 1:
                self._messenger.register_consumer(channel)

        def withdraw() -> Future[None]:
            with self._readers_lock:
                self._readers[channel] -= 1
                if self._readers[channel]:
                    return _nothing()
                return self._sent(self._messenger.deregister_consumer(channel))

        return withdraw

    def _sent(self, confirmation: Future[None]) -> Future[None]:
        """A message's confirmation, or at once nothing where no broker is there to confirm it."""
        return confirmation if self._messenger.status == "connected" else _nothing()

    def _not_found(self, channel: str, timeout: float) -> ChannelNotFound:
        return ChannelNotFound(
            f"the broker {self._broker!r} has no channel {channel!r}. {self._hint(channel, timeout)}",
            advice=Advice(
                f" hub.wait_for({channel!r}, timeout=5) waits for it to appear.",
                shell=" `labhub channels` lists what is there.",
                notebook=f" %hub_discover {channel} --wait 5 waits for it to appear.",
            ),
            channel=channel,
        )

    def _hint(self, channel: str, timeout: float) -> str:
        """What the broker has instead, the closest names first."""
        names = [entry.channel_name for entry in self._messenger.list_channels("*", timeout)]
        if close_names(channel, names):
            return "D" + did_you_mean(channel, names, repr)[1:]
        return f"It knows {', '.join(names[:5])}{' ...' if names[5:] else ''}." if names else "It knows no channel yet."

    def _segment_gone(self, entry: ChannelEntry) -> ChannelNotFound:
        channel = entry.channel_name
        if _reachable(entry):
            reason = "its segment is gone, so its producer has ended or is being replaced"
        elif entry.metadata.get("boot_id") != liveness.boot_id():
            reason = (
                f"it is on the machine {entry.producer_hostname!r}, and shared memory does not reach there; "
                "`labhub bridge` brings its data here"
            )
        else:
            reason = (
                f"its segment directory {entry.metadata.get('shm_dir')!r} is not the one that this process sees; "
                "run both in one container, or let `labhub bridge` bring its data here"
            )
        return ChannelNotFound(f"channel {channel!r} is registered, but {reason}", channel=channel)


def _reachable(entry: ChannelEntry) -> bool:
    return "shm_dir" not in entry.metadata or liveness.is_here(entry.metadata)


def _directory_of(entry: ChannelEntry) -> str:
    directory = directory_of(entry.metadata)
    if directory is None:
        raise ChannelNotFound(f"the segment of {entry.channel_name!r} is elsewhere", channel=entry.channel_name)
    return directory


def _instance_of(entry: ChannelEntry) -> bytes:
    text = entry.metadata.get("instance_id", "")
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        pass
    raise LabHubError(f"channel {entry.channel_name!r} is registered with a broken instance id: {text!r}")


def _tell_corrupt(messenger: Messenger, channel: str, seq: int) -> None:
    logger.error(
        "slot %d of channel %s is corrupt", seq, channel, extra=event("slot_corrupt", channel=channel, seq=seq)
    )
    with contextlib.suppress(BrokerUnreachable, ForkedProcessError):  # its reader is told in any case
        messenger.report_checksum_error(channel, seq)


def _nothing() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future
