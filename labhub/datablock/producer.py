"""The one writer of a channel."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.arrays import memory_of
from labhub.bound import Bound
from labhub.datablock import checksums
from labhub.datablock.config import (
    Checksum,
    ChecksumPolicy,
    ConsumerSyncPolicy,
    DataBlockPolicy,
    checked_count,
    checksum_policy_of,
    nanoseconds,
    nanoseconds_from_ms,
)
from labhub.datablock.encode import as_bytes, as_slot, as_slots
from labhub.datablock.location import segment_directory
from labhub.datablock.packing import packer_of
from labhub.datablock.sizing import choose_capacity, history_of, rate_of
from labhub.datablock.writing import WriteHandle, WriteSlot
from labhub.ending import finalizer
from labhub.errors import BackpressureTimeout, ClosedError, ConcurrentUseError, ForkedProcessError, InvalidArgument
from labhub.names import check_name
from labhub.schema import Schema
from labhub.words import quoted

Lossless = bool | Literal["single"]

SYNC_OF: dict[Lossless, ConsumerSyncPolicy] = {
    True: ConsumerSyncPolicy.SEQUENTIAL_SYNC,
    False: ConsumerSyncPolicy.LATEST_ONLY,
    "single": ConsumerSyncPolicy.SEQUENTIAL,
}


class DataBlockProducer(_native.Writer):
    """Writes the slots of one channel. Made by `open_producer` or `create_datablock_producer`.

    Any thread may use it, one at a time; any may close it. Leaving its ``with`` block, dropping the last reference and
    the normal end of the interpreter close it: readers get what is left and then the end of the stream.

    Attributes
    ----------
    name : str
        The channel.
    schema : Schema
        What one slot looks like.
    directory : str
        Where its segment is.
    rate : float or None
        Slots per second, if that is known.
    """

    rate: float | None = None
    # A heir of a native class can have no other base, in most versions of nanobind.
    __copy__, __deepcopy__, __reduce_ex__ = Bound.__copy__, Bound.__deepcopy__, Bound.__reduce_ex__

    def __init__(
        self,
        native: _native.Producer,
        name: str,
        schema: Schema,
        directory: str,
        *,
        policy: DataBlockPolicy,
        sync_policy: ConsumerSyncPolicy,
        checksum_policy: ChecksumPolicy,
        timeout: float | None,
        evict_after: float | None,
    ) -> None:
        plain_bytes = schema == Schema.raw(schema.slot_nbytes)
        enforced = checksum_policy is ChecksumPolicy.ENFORCED
        super().__init__(native, schema.dtype, schema.shape, plain_bytes, enforced)
        self._native = native
        self.name = name
        self.schema = schema
        self.directory = directory
        self.policy = policy
        self.sync_policy = sync_policy
        self.checksum_policy = checksum_policy
        self._dtype = schema.dtype
        self._shape = schema.shape
        self._plain_bytes = plain_bytes
        self._pack = packer_of(schema)
        self._enforced = enforced
        self._step_ns = schema.duration_ns
        self._evict_after_ns = nanoseconds(evict_after, "evict_after")
        self.timeout = timeout
        self.evict_after = evict_after
        self._views: dict[int, NDArray[Any]] = {}
        self._payload = native.mapping.payload()
        self._stride = native.stride
        self._slot_nbytes = schema.slot_nbytes
        self._finalize = finalizer(self, native.close)

    def _write_converted(self, record: object) -> int:
        """Write a record that is not one slot as it stands; `write`, in the compiled core, calls this."""
        if self._enforced:
            return self._write_sealed(self._bytes_of(record))
        data = self._pack(record) or self._bytes_of(record)
        return self._native.write(data, self._timeout_ns, self._evict_after_ns)

    def write_many(self, records: object) -> int:
        """Write many slots at once.

        All were measured before the call: they get the time at which it begins, however long it waits for readers.
        Of blocks of samples the last one gets it, each one before it the time at which it ended by the sample rate; if
        less time has passed since the last call than they took, they share it evenly, so that times do not fall.

        Parameters
        ----------
        records : array_like of shape (n_slots, ...), list of records, or data frame
            The slots, each of the schema's shape; records and columns are matched by name.

        Returns
        -------
        int
            How many were written: all of them.

        Raises
        ------
        SchemaMismatch
            As `write`; nothing was written then.
        BackpressureTimeout
            As `write`; its attribute `written` says how many slots were written before.
        """
        data = as_bytes(as_slots(records, self.schema))
        if self._enforced:
            return self._write_many_sealed(data)
        return self._native.write_many(data, self._timeout_ns, self._evict_after_ns, self._step_ns)

    def write_copies(self, data: NDArray[Any], headers: NDArray[np.void]) -> int:
        """Write slots of another ring, of which this one is a copy; they keep their seqs, times and checksums.

        Seqs that are missing are lost to every reader of this ring.

        Parameters
        ----------
        data : ndarray of shape (n_slots, ...)
            The slots; any C-contiguous buffer of as many bytes will do.
        headers : ndarray of shape (n_slots,)
            Their headers, of dtype `SLOT_HEADER`, with rising seqs; the epoch is this producer's own.

        Returns
        -------
        int
            How many were written: all of them.

        Raises
        ------
        InvalidArgument
            If a seq is written already, or a slot is longer than this ring's.
        BackpressureTimeout
            As `write`; its attribute `written` says how many slots were written before.
        ClosedError, ConcurrentUseError, ForkedProcessError
        """
        return self._native.write_copies(data, headers.view(np.void), self._timeout_ns, self._evict_after_ns)

    def slot(self) -> WriteSlot:
        """Open the next slot for writing in place.

        Returns
        -------
        WriteSlot
            A context manager; leaving it publishes the slot, an exception inside it does not.

        Examples
        --------
        >>> from labhub.datablock.producer import open_producer
        >>> camera = open_producer("camera", labhub.Schema.infer(dtype="u2", shape=(512, 512)))
        >>> with camera.slot() as slot:
        ...     slot.array[:] = 7
        """
        return WriteSlot(self)

    @property
    def next_seq(self) -> int:
        """Seq of the next slot to be committed."""
        return self._native.head

    @property
    def capacity(self) -> int:
        """Number of slots of the ring."""
        return self._native.capacity

    @property
    def history(self) -> float | None:
        """How far back the ring reaches at any moment (in seconds); None if it is not known how many slots come."""
        return history_of(self.capacity, self.rate)

    @property
    def instance_id(self) -> bytes:
        """Random 16 bytes that name this incarnation of the segment."""
        return self._native.instance_id

    @property
    def epoch(self) -> int:
        """1 for the first producer of a segment, one more after each takeover and each step of the wall clock."""
        return self._native.epoch

    @property
    def took_over(self) -> bool:
        """Whether this producer took over the segment of one that died."""
        return self._native.took_over

    @property
    def busy(self) -> bool:
        """Whether a slot is open."""
        return self._native.claimed

    @property
    def closed(self) -> bool:
        """Whether the producer was closed."""
        return self._native.closed

    @property
    def timeout(self) -> float | None:
        """How long a write waits for lossless consumers (in seconds); None waits for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout_ns = nanoseconds(seconds)
        self._timeout = seconds
        self._be_patient(self._timeout_ns, self._evict_after_ns)

    @property
    def evict_after(self) -> float | None:
        """After how long without a move a lossless consumer that holds the ring full is evicted (in seconds)."""
        return self._evict_after

    @evict_after.setter
    def evict_after(self, seconds: float | None) -> None:
        self._evict_after_ns = nanoseconds(seconds, "evict_after")
        self._evict_after = seconds
        self._be_patient(self._timeout_ns, self._evict_after_ns)

    def stats(self) -> dict[str, int]:
        """Return the counters of the segment.

        Returns
        -------
        dict of str to int
            ``written`` (slots), ``bytes_written``, ``aborts``, ``evictions``, ``timeouts``, ``takeovers``, ``blocked``
            (how often a write waited), ``blocked_ns`` (for how long altogether), ``clock_steps`` and ``consumers``.

        Raises
        ------
        ClosedError, ForkedProcessError
        """
        if self._native.forked:
            raise ForkedProcessError(f"{self.name!r} was opened by the parent process; open it anew in the child")
        if self.closed:
            raise ClosedError(f"the producer of {self.name!r} was closed; ask for its stats before that")
        report = _native.probe(self.directory, self.name)
        consumers = report["consumers"]
        assert isinstance(consumers, list)
        counters = report["counters"]
        assert isinstance(counters, dict)
        written = self.next_seq - int(report["first_seq"])  # type: ignore[call-overload]
        return {"written": written, **counters, "consumers": len(consumers)}

    def metadata(self) -> dict[str, Any]:
        """Return what the broker should know about the segment, as plain JSON values."""
        return {
            "instance_id": self.instance_id.hex(),
            "epoch": self.epoch,
            "shm_dir": self.directory,
            "schema": self.schema.to_json(),
            "policy": self.policy.wire,
            "consumer_sync_policy": self.sync_policy.wire,
            "checksum_policy": self.checksum_policy.wire,
            "ring_buffer_capacity": self.capacity,
            "slot_nbytes": self.schema.slot_nbytes,
        }

    def close(self) -> None:
        """End the stream and remove the segment; readers get what is left. Twice is harmless.

        Any thread may call this. If another one waits in this producer for lossless consumers, its call raises
        `ClosedError` at once, and the slot is not written. The ring's memory is given back as soon as no view of a slot
        is left.
        """
        self._native.close()
        self._views, self._payload = {}, np.empty(0, np.uint8)
        self._finalize.detach()

    def acquire_write_slot(self, timeout_ms: int) -> WriteHandle | None:
        """Open the next slot (reference level); None after `timeout_ms` milliseconds (below 0: wait for ever)."""
        try:
            index = self._native.claim(nanoseconds_from_ms(timeout_ms), self._evict_after_ns)
        except BackpressureTimeout:
            return None
        return WriteHandle(self, index)

    def release_write_slot(self, handle: WriteHandle) -> None:
        """Publish the slot of a committed handle; one that was not committed is aborted."""
        if handle.producer is not self:
            raise InvalidArgument(f"this handle belongs to {handle.producer.name!r}, not to {self.name!r}")
        handle.release()

    def _claim(self) -> int:
        return self._native.claim(self._timeout_ns, self._evict_after_ns)

    def _bytes_of(self, record: object) -> NDArray[np.uint8]:
        if self._plain_bytes and isinstance(record, bytes | bytearray | memoryview):
            return memory_of(record, contiguous=True)
        return as_bytes(as_slot(record, self.schema))

    def _write_sealed(self, data: NDArray[np.uint8], time_ns: int = _native.NOW) -> int:
        """Write one slot with its checksum, which is that of the bytes in the slot: nobody changes those any more."""
        try:
            index = self._claim()
            if data.size <= self._slot_nbytes:  # else the commit refuses it
                self._raw(index)[: data.size] = data
            return self._commit(index, data.size, time_ns, planned=True)
        except ConcurrentUseError:  # the open slot is another one
            raise
        except BaseException:
            self._abort()
            raise

    def _write_many_sealed(self, data: NDArray[np.uint8]) -> int:
        slots = data.reshape(-1, self.schema.slot_nbytes)
        first_ns, step_ns = self._native.span_of(len(slots), self._step_ns)
        for written, slot in enumerate(slots):
            try:
                self._write_sealed(slot, first_ns + written * step_ns)
            except BackpressureTimeout as error:
                error.written = written
                raise
        return len(slots)

    def _commit(
        self, index: int, nbytes: int, timestamp_ns: int = _native.NOW, *, seal: bool = False, planned: bool = False
    ) -> int:
        if not (seal or self._enforced):
            return self._native.commit(nbytes, timestamp_ns)
        return self._native.commit(nbytes, timestamp_ns, checksums.digest(self._raw(index)[:nbytes]), planned)

    def _require_checksums(self) -> None:
        if self.checksum_policy is ChecksumPolicy.NONE:
            raise InvalidArgument(
                f"{self.name!r} carries no checksums; create it with ChecksumPolicy.MANUAL (checksum='manual')"
            )

    def _abort(self) -> None:
        self._native.abort()

    def _view(self, index: int) -> NDArray[Any]:
        """Return the writable array of one slot; made once, as making it costs more than a write."""
        view = self._views.get(index)
        if view is None:
            view = self._views[index] = self._raw(index).view(self._dtype).reshape(self._shape)
        return view

    def _raw(self, index: int) -> NDArray[np.uint8]:
        """Return the writable bytes of one slot."""
        start = index * self._stride
        return self._payload[start : start + self._slot_nbytes]

    def _instead(self) -> str:
        return "a channel has one writer: close it here, and open it in the other process"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"next_seq={self.next_seq}"
        return f"DataBlockProducer({self.name!r}, {self.schema!r}, capacity={self.capacity}, {state})"


def open_producer(
    name: str,
    schema: Schema,
    *,
    directory: str | None = None,
    capacity: int | None = None,
    history: float | None = None,
    rate: float | None = None,
    lossless: Lossless = True,
    timeout: float | None = 5.0,
    evict_after: float | None = 1.0,
    checksum: Checksum = "none",
    shared_secret: int = 0,
    first_seq: int = 0,
) -> DataBlockProducer:
    """Create the segment of a channel, or take it over from a producer that died.

    Parameters
    ----------
    name : str
        The channel.
    schema : Schema
        What one slot looks like.
    directory : str, optional
        Where segments live; that of the broker ``default``.
    capacity : int, optional
        Number of slots; as many as fit 8 MB, at least 8, and for 2 seconds if the rate is known.
    history, rate : float, optional
        How far back the ring reaches instead (in seconds), and slots per second; see `Hub.producer`.
    lossless : bool or "single"
        Whether lossless consumers may attach: up to 64, none, or exactly one.
    timeout : float or None
        How long a write waits for lossless consumers (in seconds).
    evict_after : float or None
        After how long without a move a lossless consumer that holds the producer up is evicted (in seconds).
    checksum : {"none", "manual", "enforced"} or ChecksumPolicy
        Whether slots carry a checksum: where the producer asks for it, or always, and then every read verifies it.
    shared_secret : int
        Detects a wrong or stale segment; 0 for none. It is not access control.
    first_seq : int
        Seq of the first slot of a new segment; one that is taken over goes on where it was.

    Returns
    -------
    DataBlockProducer

    Raises
    ------
    ChannelBusy
        If the channel has a live producer.
    InvalidName, InvalidArgument, IncompatibleSegment, SegmentAccessError, SegmentSpaceError, SegmentTokenMismatch
    """
    check_ring(capacity, lossless, timeout, evict_after)
    check_name(name)
    directory = segment_directory() if directory is None else directory
    producer = open_native(
        name,
        schema,
        directory,
        capacity=choose_capacity(name, schema, directory, capacity, history, rate),
        page_nbytes=4096,
        shared_secret=shared_secret,
        policy=DataBlockPolicy.RING_BUFFER,
        sync_policy=SYNC_OF[lossless],
        checksum_policy=checksum_policy_of(checksum),
        timeout=timeout,
        evict_after=evict_after,
        first_seq=first_seq,
    )
    producer.rate = rate_of(schema, rate)
    return producer


def check_ring(
    capacity: int | None, lossless: object, timeout: float | None = None, evict_after: float | None = None
) -> None:
    """Refuse what no ring can have, before anything is created.

    Raises
    ------
    InvalidArgument
        One of them is nothing of its kind.
    """
    if capacity is not None:
        checked_count("capacity", capacity)
    if not isinstance(lossless, bool | str) or lossless not in SYNC_OF:
        raise InvalidArgument(f"lossless is True, False or 'single', not {quoted(lossless)}")
    nanoseconds(timeout)
    nanoseconds(evict_after, "evict_after")


def open_native(
    name: str,
    schema: Schema,
    directory: str,
    *,
    capacity: int,
    page_nbytes: int,
    shared_secret: int,
    policy: DataBlockPolicy,
    sync_policy: ConsumerSyncPolicy,
    checksum_policy: ChecksumPolicy,
    timeout: float | None,
    evict_after: float | None,
    first_seq: int = 0,
) -> DataBlockProducer:
    """Open a producer by what the segment's header says; raises as `open_producer`."""
    nanoseconds(timeout)
    nanoseconds(evict_after, "evict_after")  # refuse bad ones before anything is created
    native = _native.Producer(
        os.fspath(directory),
        name,
        capacity=capacity,
        slot_nbytes=schema.slot_nbytes,
        page_nbytes=page_nbytes,
        schema_hash=schema.layout_hash,
        shared_secret=_checked_secret(shared_secret),
        policy=policy,
        sync_policy=sync_policy,
        checksum_policy=checksum_policy,
        initial_seq=first_seq,
    )
    return DataBlockProducer(
        native,
        name,
        schema,
        directory,
        policy=policy,
        sync_policy=sync_policy,
        checksum_policy=checksum_policy,
        timeout=timeout,
        evict_after=evict_after,
    )


def _checked_secret(secret: object) -> int:
    if isinstance(secret, bool) or not isinstance(secret, int) or not 0 <= secret < 2**64:
        raise InvalidArgument("shared_secret is a whole number of 64 bits, 0 for none")
    return secret
