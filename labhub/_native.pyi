"""Contract of the compiled core (``native/src``).

Thin and unfriendly on purpose: `labhub.datablock` is what people use. Times are int64 nanoseconds; a timeout below
zero waits for ever and zero does not wait. Every blocking call releases the GIL and honours Ctrl-C. Errors are the
classes of `labhub.errors`, mapped by one table.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

ABI_VERSION: Final[int]
MAX_LOSSLESS: Final[int]
MAX_OBSERVERS: Final[int]
SLOT_HEADER_NBYTES: Final[int]
NOW: Final[int]
"""As the time of a slot: that of its publication (INT64_MIN). Every other number is a time; 0 is 1970."""
START_NEWEST: Final[int]
START_OLDEST: Final[int]
START_LAST: Final[int]
STREAM_ENDED: Final[int]

class Mapping:
    """Owner of one memory map. Arrays refer to it, and it alone unmaps, when the last of them is gone."""

    @property
    def nbytes(self) -> int: ...
    def payload(self) -> NDArray[np.uint8]:
        """Whole payload, shape (capacity * stride,); read-only for consumers. Its base is this mapping."""

class Writer:
    """Base of `labhub.DataBlockProducer`: `write` without a Python frame, for what is one slot as it stands.

    That is an ndarray, not of a subclass, C-contiguous, of the dtype and shape that the writer was made
    with; or ``bytes`` of up to a slot, if it is `raw`. Everything else, and everything if it is `sealed`, goes to
    the method ``_write_converted(record)`` of the derived class.
    """

    def __init__(
        self, producer: Producer, dtype: np.dtype[Any], shape: tuple[int, ...], raw: bool, sealed: bool
    ) -> None: ...
    def _be_patient(self, timeout_ns: int, evict_after_ns: int) -> None:
        """Set how long `write` waits for lossless consumers, and after how long it evicts one."""
    def write(self, record: object) -> int:
        """Write one slot; its seq. Raises as `Producer.write`, and what the conversion raises."""

class Producer:
    """The one writer of a segment; creates it, takes a dead producer's over, or replaces a dead one that differs.

    Raises ChannelBusy, IncompatibleSegment, VersionMismatch, SegmentAccessError, SegmentSpaceError, InvalidName,
    InvalidArgument. `initial_seq` is the seq of the first slot (for tests near the wrap-around).
    """

    def __init__(
        self,
        directory: str,
        name: str,
        *,
        capacity: int,
        slot_nbytes: int,
        page_nbytes: int = 4096,
        schema_hash: bytes,
        shared_secret: int = 0,
        policy: int = 2,
        sync_policy: int = 2,
        checksum_policy: int = 0,
        initial_seq: int = 0,
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def mapping(self) -> Mapping: ...
    @property
    def instance_id(self) -> bytes: ...
    @property
    def epoch(self) -> int: ...
    @property
    def took_over(self) -> bool: ...
    @property
    def capacity(self) -> int: ...
    @property
    def slot_nbytes(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def head(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def forked(self) -> bool:
        """True in a forked child of the process that opened it."""
    @property
    def claimed(self) -> bool: ...
    def write(self, data: object, timeout_ns: int, evict_after_ns: int, timestamp_ns: int = NOW) -> int:
        """Claim, copy, commit one slot from a contiguous buffer of at most `slot_nbytes` bytes; its seq.

        Raises BackpressureTimeout (pid, lag), ClosedError, ConcurrentUseError, ForkedProcessError, InvalidArgument.
        """
    def write_many(self, data: object, timeout_ns: int, evict_after_ns: int, step_ns: int = 0) -> int:
        """Write a contiguous buffer of k * slot_nbytes bytes as k slots; the number written.

        The timeout holds for each slot. Fewer than k are written only when a timeout or a signal cuts it short: a
        BackpressureTimeout then carries `written`. The slots get the times of `span_of`.
        """
    def write_copies(self, data: object, headers: object, timeout_ns: int, evict_after_ns: int) -> int:
        """Write k slots of another ring, of which this one is a copy; the number written.

        `data` is contiguous, of k * slot_nbytes bytes; `headers` has k items of SLOT_HEADER_NBYTES bytes, as
        `Consumer.read` gives them: their seq, timestamp, nbytes and checksum are kept, the epoch is this producer's.
        Seqs that are missing are lost to every reader. Raises as `write_many`, and InvalidArgument for a seq that is
        written already.
        """
    def claim(self, timeout_ns: int, evict_after_ns: int) -> int:
        """Open the next slot for writing; its index in the ring."""
    def commit(self, nbytes: int, timestamp_ns: int = NOW, checksum: bytes | None = None, planned: bool = False) -> int:
        """Publish the open slot; its seq.

        If the time is `planned`, one of `span_of`, those that the producer gives from here on do not fall behind it.
        """
    def span_of(self, n_slots: int, step_ns: int) -> tuple[int, int]:
        """Times of slots that were measured together, if they are written from now on: the first, and the step.

        The last slot gets the time of now, each one before it `step_ns` less; the step is shorter if the slots would
        otherwise reach back before the last one that was written.
        """
    def abort(self) -> None:
        """Close the open slot without publishing it; the seq is used again. No-op when none is open."""
    def close(self) -> None:
        """Mark the segment closed, wake everybody, unlink it (if still ours), drop the lock. Idempotent."""

class Views:
    """An iteration over slots in place; see `Consumer.views`."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> NDArray[Any]: ...

class Consumer:
    """A reader of a segment.

    `start` is a seq, START_NEWEST (the next slot to be committed), START_OLDEST (as far back as the ring holds) or
    START_LAST (the newest committed slot, if there is one). `schema_hash`, `instance_id` are compared unless empty
    (a segment whose schema hash is 32 zero bytes is undeclared, and matches any), `shared_secret` unless it is 0,
    `capacity`, `slot_nbytes`, `policy`, `sync_policy`, `checksum_policy` unless None. With `busy_poll` its waits use a
    core up instead of sleeping.

    Raises ChannelNotFound, IncompatibleSegment, VersionMismatch, SegmentAccessError, SegmentSpaceError,
    SegmentTokenMismatch, SchemaMismatch, ChannelBusy (lossless and no free cursor line), InvalidName, InvalidArgument.
    """

    def __init__(
        self,
        directory: str,
        name: str,
        *,
        lossless: bool,
        start: int,
        schema_hash: bytes = b"",
        instance_id: bytes = b"",
        shared_secret: int = 0,
        capacity: int | None = None,
        slot_nbytes: int | None = None,
        policy: int | None = None,
        sync_policy: int | None = None,
        checksum_policy: int | None = None,
        busy_poll: bool = False,
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def mapping(self) -> Mapping: ...
    @property
    def instance_id(self) -> bytes: ...
    @property
    def schema_hash(self) -> bytes: ...
    @property
    def capacity(self) -> int: ...
    @property
    def slot_nbytes(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def policy(self) -> int: ...
    @property
    def sync_policy(self) -> int: ...
    @property
    def checksum_policy(self) -> int: ...
    @property
    def lossless(self) -> bool: ...
    @property
    def epoch(self) -> int:
        """Epoch of the segment's producer now."""
    @property
    def head(self) -> int: ...
    @property
    def cursor(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def closed_here(self) -> bool:
        """Whether the calling thread has closed it."""
    @property
    def ended(self) -> bool:
        """True once the producer has closed the segment (or a successor with another schema replaced it)."""
    @property
    def producer_pid(self) -> int: ...
    @property
    def producer_alive(self) -> bool: ...
    def wait(self, min_slots: int, timeout_ns: int, until_gone: bool = False) -> int:
        """Wait until `min_slots` (clipped to the capacity) slots are unread; how many there are, at most capacity.

        0 after a timeout; STREAM_ENDED (-1) when the stream has ended and everything is read. When it has ended with
        fewer than `min_slots` unread, those. With `until_gone`, ProducerGone as soon as the producer is dead and
        nothing is unread; otherwise a dead producer is waited for until the timeout. Raises Evicted (lost, and the
        consumer is registered anew at the head).
        """
    def read(self, data: NDArray[Any], headers: NDArray[np.void]) -> tuple[int, int, bool]:
        """Copy unread slots. Does not wait.

        Returns how many, how many were lost just before the first of them, and whether they are of several epochs.

        `data` is C-contiguous, of n * slot_nbytes bytes; `headers` has n items of SLOT_HEADER_NBYTES bytes. The copy
        is validated; a clobbered prefix is dropped and counted, and the valid slots are moved to the front. Bytes of a
        slot beyond its committed length are zero. The cursor moves behind the last slot copied. In `headers`, field
        `seq` is the slot's index (not its lock word). Raises Evicted.
        """
    @property
    def last_read(self) -> tuple[int, int]:
        """The first two results of the last `read`, for whom an interrupt has kept from getting them."""
    def skip_to_newest(self) -> None:
        """Move the cursor to the newest unread slot, if there is one; those in between count as lost."""
    def first_within(self, first: int, span_ns: int) -> tuple[int, bool]:
        """Seq of the first slot from `first` on that is at most `span_ns` older than the newest one.

        And whether one of the slots before it is older than that. Times may fall.
        """
    @property
    def first_seq(self) -> int:
        """Seq of the first slot of this incarnation."""
    def peek(self, first: int, data: NDArray[np.uint8], headers: NDArray[np.void]) -> tuple[int, int]:
        """Copy history without moving the cursor: (seq of the first slot copied, how many), both validated.

        Asks for the slots first .. first + len(headers); those already overwritten or not yet committed are left out.
        """
    def acquire(self, newest: bool, timeout_ns: int, until_gone: bool = False) -> int:
        """Open the next (or the newest unread) slot in place; its seq, -1 when the stream has ended, -2 on a timeout.

        Skipped slots count as lost when `newest` skips them. Raises Evicted, ConcurrentUseError when one is open.
        """
    def views(
        self, cached: list[NDArray[Any] | None], make: Callable[[int], NDArray[Any]], newest: bool, timeout_ns: int
    ) -> Views:
        """Iterate over slots in place, one call for each: release the open slot, open the next, return its view.

        The views are kept in `cached`, by index in the ring; `make(index)` makes those that are still None. Raises
        TimeoutExpired, and at the step after the slot Lapped or Evicted. Leaving the iteration releases its slot.
        """
    def header(self) -> bytes:
        """SLOT_HEADER_NBYTES bytes of the open slot, validated; field seq is its index. Raises Lapped, Evicted."""
    def valid(self) -> bool:
        """Whether the open slot has not been overwritten so far (acquire fence, seq and own state re-read)."""
    def release(self) -> None:
        """Close the open slot and move on. Raises Lapped (counted as lost) or Evicted if it was overwritten."""
    def cancel(self) -> None:
        """Close the open slot, if there is one, as if it had not been opened: it is the next one again."""
    def abandon(self) -> None:
        """Close the open slot, if there is one, on the way out of another error, which is the one to report."""
    def seek(self, seq: int) -> None:
        """Move the cursor of a lossy consumer; START_* are understood. Nothing is counted as lost."""
    def close(self) -> None: ...

def end() -> None:
    """Say that the calling thread ends the interpreter: from now on every other one that is in here stays, for ever."""

def leave(
    slot: Any, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """``__exit__`` of a slot: call its ``_leave`` with the same arguments, and close the slot if that fails.

    It binds like a method. Unlike one in Python it cannot be interrupted before it begins. The attribute ``_native`` of
    the slot is the Producer or Consumer that it is open in.
    """

def nothing() -> None:
    """Do nothing: an empty call, the unit in which the benchmarks give the cost of the others."""

def probe(directory: str, name: str) -> dict[str, object]:
    """What a segment says, without touching it.

    Keys: path, instance_id (bytes), schema_hash (bytes), epoch, head, first_seq, capacity, slot_nbytes, stride,
    nbytes, policy, sync_policy, checksum_policy, closed (bool), alive (bool: the producer's lock is held), pid,
    start_time, st_dev, st_ino, created_ns, commit_ns (timestamp of the newest slot or 0), counters (dict of int:
    bytes_written, aborts, evictions, blocked_ns, blocked, takeovers, timeouts, clock_steps, since the last reset) and
    consumers (list of dicts: line, lossless, alive, evicted, pid, cursor, lag, lost, received). Raises like Consumer.
    """

def reset_counters(directory: str, name: str) -> None:
    """Let the counters that `probe` gives begin at zero; live users do not notice. Raises like Consumer."""

def slot_states(directory: str, name: str) -> dict[str, int]:
    """How many slots are empty, committed, holes, writing and uncommitted (complete, but not published).

    Raises like Consumer. A slot that was aborted, or left behind by a producer that died in mid-write, is ``writing``.
    """

def unlink_dead(directory: str, name: str, instance_id: bytes = b"") -> bool:
    """Unlink a segment whose producer is provably dead, and wake its readers with the end of the stream.

    True if it was unlinked; False if it is alive, gone, or of another instance. Never touches a foreign file.
    """
