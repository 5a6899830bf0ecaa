"""Policies and configuration of a DataBlock, with the names of the reference system."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Literal

from labhub.arguments import LARGEST, whole
from labhub.errors import InvalidArgument
from labhub.words import quoted

NO_NUMBERS = (bool, str, bytes)
"""What `float` takes, and is no number."""


class DataBlockPolicy(IntEnum):
    """How many slots a DataBlock has."""

    SINGLE = 0
    """One slot."""
    DOUBLE_BUFFER = 1
    """Two slots."""
    RING_BUFFER = 2
    """As many as `DataBlockConfig.ring_buffer_capacity` says."""

    @property
    def wire(self) -> str:
        """Name of the policy in messages to the broker."""
        return ("Single", "DoubleBuffer", "RingBuffer")[self]


class ConsumerSyncPolicy(IntEnum):
    """Who waits for whom."""

    LATEST_ONLY = 0
    """The producer never waits; a consumer gets the newest slot that it has not seen."""
    SEQUENTIAL = 1
    """Exactly one lossless consumer, which gets every slot in order."""
    SEQUENTIAL_SYNC = 2
    """Up to 64 lossless consumers; the producer waits for the slowest."""

    @property
    def wire(self) -> str:
        """Name of the policy in messages to the broker."""
        return ("Latest_only", "Sequential", "Sequential_sync")[self]


class ChecksumPolicy(IntEnum):
    """Whether slots carry a BLAKE3 checksum."""

    NONE = 0
    """No checksums; torn reads are excluded without them."""
    MANUAL = 1
    """The producer stores one where it asks for it, and a consumer verifies where it asks for it."""
    ENFORCED = 2
    """Every commit stores one, and every read verifies it."""

    @property
    def wire(self) -> str:
        """Name of the policy in messages to the broker."""
        return ("None", "Manual", "Enforced")[self]


Checksum = Literal["none", "manual", "enforced"] | ChecksumPolicy


class DataBlockPageSize(Enum):
    """Granularity (in bytes) to which the size of a segment is rounded up."""

    SIZE_4K = 4096
    SIZE_4M = 4 * 1024 * 1024
    SIZE_16M = 16 * 1024 * 1024


@dataclass
class DataBlockConfig:
    """What the reference-level calls want to know. A field that is None is left to its default, or not compared.

    Attributes
    ----------
    policy : DataBlockPolicy, optional
    consumer_sync_policy : ConsumerSyncPolicy, optional
    ring_buffer_capacity : int, optional
        Slots of a RING_BUFFER.
    physical_page_size : DataBlockPageSize, optional
        Granularity of the allocation.
    logical_unit_size : int, optional
        Bytes of one slot; None makes a slot one page.
    shared_secret : int, optional
        Detects a wrong or stale segment (0: none asked). It is not access control.
    checksum_policy : ChecksumPolicy, optional
        NONE unless given.
    """

    policy: DataBlockPolicy | None = None
    consumer_sync_policy: ConsumerSyncPolicy | None = None
    ring_buffer_capacity: int | None = None
    physical_page_size: DataBlockPageSize | None = None
    logical_unit_size: int | None = None
    shared_secret: int | None = None
    checksum_policy: ChecksumPolicy | None = None

    @property
    def page_nbytes(self) -> int:
        """Bytes of one page."""
        return (self.physical_page_size or DataBlockPageSize.SIZE_4K).value

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one slot."""
        return self.page_nbytes if self.logical_unit_size is None else self.logical_unit_size


def checksum_policy_of(checksum: object) -> ChecksumPolicy:
    """Return the policy that is meant by ``"none"``, ``"manual"``, ``"enforced"`` or the policy itself.

    Raises
    ------
    InvalidArgument
        If it is something else.
    """
    if isinstance(checksum, ChecksumPolicy):
        return checksum
    if not isinstance(checksum, str) or checksum not in ("none", "manual", "enforced"):
        raise InvalidArgument(f"checksum is 'none', 'manual', 'enforced' or a ChecksumPolicy, not {quoted(checksum)}")
    return ChecksumPolicy[str(checksum).upper()]


def capacity_of(policy: DataBlockPolicy, capacity: int | None) -> int:
    """Return the number of slots that a policy asks for.

    Raises
    ------
    InvalidArgument
        If a ring has no capacity, or another policy is given one that it cannot have.
    """
    fixed = {DataBlockPolicy.SINGLE: 1, DataBlockPolicy.DOUBLE_BUFFER: 2}.get(policy)
    if fixed is not None:
        if capacity not in (None, fixed):
            raise InvalidArgument(f"{policy.name} has {fixed} slot(s), not {capacity}; use RING_BUFFER for more")
        return fixed
    return checked_count("capacity", 8 if capacity is None else capacity)


def checked_count(name: str, n: object) -> int:
    """Return `n` if it is a whole number of at least 1.

    Raises
    ------
    InvalidArgument
        Otherwise.
    """
    count = whole(n)
    if count is None or not 1 <= count <= LARGEST:
        raise InvalidArgument(f"{name} must be a whole number of at least 1, not {quoted(n)}")
    return count


def nanoseconds(timeout: float | None, name: str = "timeout") -> int:
    """Turn a timeout (in seconds; None waits for ever) into what the native core takes.

    Raises
    ------
    InvalidArgument
        If it is not a number of at least 0.
    """
    if timeout is None:
        return -1
    try:
        seconds = -1.0 if isinstance(timeout, NO_NUMBERS) else float(timeout)
    except (TypeError, ValueError, OverflowError):
        seconds = -1.0
    if not seconds >= 0:
        raise InvalidArgument(f"{name} is a number of seconds of at least 0, or None for ever, not {quoted(timeout)}")
    return -1 if seconds > 1e9 else int(seconds * 1e9)


def nanoseconds_from_ms(timeout_ms: int) -> int:
    """Turn the reference level's milliseconds into nanoseconds; a negative timeout waits for ever."""
    return nanoseconds(None if timeout_ms < 0 else timeout_ms / 1000, "timeout_ms")
