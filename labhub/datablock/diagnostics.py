"""What a segment says about itself, for people and tools; nobody on either side of the channel notices the look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from labhub import _native
from labhub.datablock.config import ChecksumPolicy, ConsumerSyncPolicy, DataBlockPolicy
from labhub.datablock.location import segment_directory
from labhub.names import check_name


@dataclass(frozen=True)
class Reader:
    """One consumer, as the segment shows it.

    Attributes
    ----------
    line : int
        Its cursor line: 0 to 63 lossless consumers, 64 to 127 lossy ones.
    pid : int
        Its process.
    kind : {"lossless", "lossy"}
    alive : bool
        Whether a process holds the line's lock.
    evicted : bool
        Whether the producer has evicted it and it has not noticed yet.
    cursor, lag : int
        Seq that it reads next, and how many slots that is behind the head.
    received, lost : int
        Slots, since the last reset of the counters.
    """

    line: int
    pid: int
    kind: Literal["lossless", "lossy"]
    alive: bool
    evicted: bool
    cursor: int
    lag: int
    received: int
    lost: int


@dataclass(frozen=True)
class Diagnosis:
    """One segment at one moment.

    Attributes
    ----------
    name, path : str
        Of the segment.
    alive : bool
        Whether a process holds the producer's lock.
    closed : bool
        Whether the stream has ended.
    pid, start_time : int
        The producer's process, and when it started (in clock ticks since boot).
    epoch, opened_epoch : int
        1 for the creator, one more after each takeover and each step of the producer's clock; and the one with which
        the producer began (0 if its labhub does not say).
    clock_ahead_ns : int
        By how much the clock of the slots is ahead of the wall clock (in ns). The producer looks at that again when it
        writes, once a second at most.
    instance_id, schema_hash : str
        In hexadecimal.
    capacity, slot_nbytes, stride, nbytes : int
        Slots of the ring; bytes of a slot, from one slot to the next, and of the whole file.
    policy, sync_policy, checksum_policy : str
        Names of the policies.
    first_seq, head : int
        Seq of the first slot ever, and of the one that is committed next.
    created_ns, commit_ns : int
        When the segment was made and the newest slot committed (in ns since the epoch, UTC; 0 for never).
    slots : dict of str to int
        How many slots are ``empty``, ``committed``, ``holes`` (passed over by `write_copies`), ``writing`` and
        ``uncommitted``; empty if nobody asked for it.
    counters : dict of str to int
        ``bytes_written``, ``aborts``, ``evictions``, ``timeouts``, ``takeovers``, ``blocked``, ``blocked_ns`` and
        ``clock_steps``, since the last reset.
    readers : tuple of Reader
    """

    name: str
    path: str
    alive: bool
    closed: bool
    pid: int
    start_time: int
    epoch: int
    opened_epoch: int
    clock_ahead_ns: int
    instance_id: str
    schema_hash: str
    capacity: int
    slot_nbytes: int
    stride: int
    nbytes: int
    policy: str
    sync_policy: str
    checksum_policy: str
    first_seq: int
    head: int
    created_ns: int
    commit_ns: int
    slots: dict[str, int]
    counters: dict[str, int]
    readers: tuple[Reader, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return asdict(self)


def diagnose(name: str, directory: str | None = None, *, slots: bool = True) -> Diagnosis:
    """Look at the segment of a channel, without touching it.

    Parameters
    ----------
    name : str
        Name of the segment.
    directory : str, optional
        Where it is; that of the broker ``default``.
    slots : bool
        Look at each slot, too. That takes 2 ms for 100,000 slots, everything else 0.1 ms.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ChannelNotFound, IncompatibleSegment, VersionMismatch, SegmentAccessError, InvalidName

    Examples
    --------
    >>> with hub.producer("adc", like=0, capacity=16) as adc:
    ...     count = adc.write_many(range(100))
    ...     found = labhub.diagnose("adc")
    >>> found.head, found.capacity, found.sync_policy
    (100, 16, 'SEQUENTIAL_SYNC')
    """
    directory = segment_directory() if directory is None else directory
    found = cast("dict[str, Any]", _native.probe(directory, check_name(name, "segment")))
    readers = tuple(
        Reader(kind="lossless" if line.pop("lossless") else "lossy", **line) for line in found.pop("consumers")
    )
    for key in ("st_dev", "st_ino"):
        del found[key]
    found |= {
        "instance_id": found["instance_id"].hex(),
        "schema_hash": found["schema_hash"].hex(),
        "policy": DataBlockPolicy(found["policy"]).name,
        "sync_policy": ConsumerSyncPolicy(found["sync_policy"]).name,
        "checksum_policy": ChecksumPolicy(found["checksum_policy"]).name,
    }
    states = _native.slot_states(directory, name) if slots else {}
    return Diagnosis(name=name, slots=states, readers=readers, **found)


def reset_counters(name: str, directory: str | None = None) -> None:
    """Let the counters of a segment begin at zero, for the tools; its producer and consumers do not notice.

    The parameters and errors are those of `diagnose`.
    """
    _native.reset_counters(segment_directory() if directory is None else directory, check_name(name, "segment"))
