"""The directory of channels, without any rule about who may change it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from labhub.errors import ProtocolError, SchemaMismatch
from labhub.protocol.messages import MAX_METADATA_DEPTH, ErrorCode, RegReq

ENTRY_NBYTES = 400
"""What a listed channel takes besides its metadata, or little less (in bytes)."""
MAX_CORRUPT = 256
"""So many slots that were reported corrupt are remembered for each channel, to tell of each of them once."""


@dataclass
class Registration:
    """One registered channel.

    Attributes
    ----------
    owner_key : str
        Public key (z85) of the client that registered it; empty without CURVE.
    registered_at, heartbeat_at, dead_since, closed_since : float or None
        On the broker's monotonic clock (in seconds).
    consumers : dict of (key, pid) to float
        Registered consumers, and when each was heard of last.
    metrics : dict of str to float
        As its owner reported them last, at `metrics_at`.
    nbytes : int
        What it takes in a list, about (in bytes).
    """

    channel_name: str
    shm_name: str
    schema_hash: str
    schema_version: int
    producer_pid: int
    producer_hostname: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    owner_key: str = ""
    registered_at: float = 0.0
    heartbeat_at: float | None = None
    dead_since: float | None = None
    closed_since: float | None = None
    consumers: dict[tuple[str, int], float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_at: float | None = None
    nbytes: int = ENTRY_NBYTES
    _corrupt: dict[int, None] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, request: RegReq, owner_key: str, now: float) -> Registration:
        """Make the registration that a request asks for.

        Raises
        ------
        ProtocolError
            If its metadata are nested more deeply than every reply could carry.
        """
        if _depth(request.metadata) > MAX_METADATA_DEPTH:
            raise ProtocolError(f"metadata are nested at most {MAX_METADATA_DEPTH} deep")
        return cls(
            channel_name=request.channel_name,
            shm_name=request.shm_name,
            schema_hash=request.schema_hash.lower(),
            schema_version=request.schema_version,
            producer_pid=request.producer_pid,
            producer_hostname=request.producer_hostname,
            metadata=request.metadata,
            owner_key=owner_key,
            registered_at=now,
            nbytes=ENTRY_NBYTES + len(msgspec.json.encode(request.metadata)),
        )

    @property
    def declared(self) -> tuple[object, ...]:
        """What its producer says of the slots."""
        return self.schema_hash, self.schema_version, self.metadata.get("schema")

    @property
    def owner(self) -> tuple[str, int, str]:
        """Who may refresh it: key, pid and segment."""
        return self.owner_key, self.producer_pid, self.shm_name

    def closed_for(self, now: float) -> float:
        """For how long its segment has been seen closed, while it is still registered (in seconds)."""
        if self.closed_since is None:
            self.closed_since = now
        return now - self.closed_since

    @property
    def is_back(self) -> str:
        """What watchers are told when its producer turns out not to have died."""
        return f"its producer, process {self.producer_pid}, is back"

    def succeeds(self, old: Registration) -> bool:
        """Whether this is the registration of a producer that took the same segment over."""
        instance = self.metadata.get("instance_id")
        if not instance or instance != old.metadata.get("instance_id"):
            return False
        mine, theirs = self.metadata.get("epoch"), old.metadata.get("epoch")
        return isinstance(mine, int) and isinstance(theirs, int) and mine > theirs

    def refresh(self, old: Registration) -> None:
        """Go on with what is known of `old`, which must be the same owner's registration.

        Raises
        ------
        ProtocolError
            If it is not.
        """
        if old.schema_hash != self.schema_hash:
            raise ProtocolError(
                f"Schema hash differs from existing registration for channel '{old.channel_name}'",
                code=ErrorCode.SCHEMA_MISMATCH.value,
            )
        if self.owner != old.owner:
            raise ProtocolError(
                f"Channel '{old.channel_name}' is owned by process {old.producer_pid}"
                + (f" on {old.producer_hostname}" if old.producer_hostname else ""),
                code=ErrorCode.CHANNEL_BUSY.value,
            )
        self.registered_at, self.heartbeat_at, self.consumers = old.registered_at, old.heartbeat_at, old.consumers
        self.metrics, self.metrics_at, self._corrupt = old.metrics, old.metrics_at, old._corrupt
        self.dead_since = old.dead_since  # until the broker looks again, and tells whoever watches

    def note_corrupt(self, seq: int) -> bool:
        """Note that a slot is corrupt; whether that is news."""
        if seq in self._corrupt:
            return False
        self._corrupt[seq] = None
        if len(self._corrupt) > MAX_CORRUPT:
            del self._corrupt[next(iter(self._corrupt))]
        return True


class ChannelRegistry:
    """Channels by name. Not thread-safe: the broker's thread owns it."""

    def __init__(self) -> None:
        self._by_name: dict[str, Registration] = {}

    def register_channel(self, channel: str, entry: Registration) -> bool:
        """Enter a channel, or refresh it.

        Returns
        -------
        bool
            True if it was not there before.

        Raises
        ------
        SchemaMismatch
            If it is registered with another schema hash; the entry stays as it was.
        """
        known = self._by_name.get(channel)
        if known is not None and known.schema_hash != entry.schema_hash:
            raise SchemaMismatch(
                f"Schema hash differs from existing registration for channel '{channel}'",
                difference=(f"schema_hash: {known.schema_hash} registered, {entry.schema_hash} offered",),
            )
        self._by_name[channel] = entry
        return known is None

    def find_channel(self, channel: str) -> Registration | None:
        """Return the entry of a channel, or None."""
        return self._by_name.get(channel)

    def deregister_channel(self, channel: str, producer_pid: int) -> bool:
        """Remove a channel if this pid registered it; whether it was removed."""
        known = self._by_name.get(channel)
        if known is None or known.producer_pid != producer_pid:
            return False
        del self._by_name[channel]
        return True

    def remove(self, channel: str) -> None:
        """Remove a channel, whoever registered it."""
        self._by_name.pop(channel, None)

    def names(self) -> list[str]:
        """Return the names of all channels, sorted."""
        return sorted(self._by_name)

    def __iter__(self) -> Iterator[Registration]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, channel: object) -> bool:
        return channel in self._by_name


def _depth(value: object) -> int:
    """How deep objects and lists are nested; without recursion, as that is what the limit is about."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list)]:
        depth += 1
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return depth
