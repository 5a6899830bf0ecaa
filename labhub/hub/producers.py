"""The producer that a hub hands out: the writing end of a DataBlock, registered with the broker."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from labhub.arguments import check_hints
from labhub.bound import Bound
from labhub.datablock.config import ChecksumPolicy
from labhub.datablock.encode import first_of
from labhub.datablock.producer import DataBlockProducer, Lossless, open_producer
from labhub.datablock.sizing import check_size, rate_of, slots_for
from labhub.datablock.writing import WriteSlot
from labhub.errors import ChannelBusy, ClosedError, ConcurrentUseError, InvalidArgument, SchemaConflict
from labhub.hub.holder import describe_process
from labhub.hub.lease import Lease
from labhub.hub.succession import Announce, Succession
from labhub.logs import event
from labhub.schema import Schema

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

logger = logging.getLogger(__name__)

Register = Callable[[DataBlockProducer], Lease]
# Of a wanted schema and the pid of who holds the channel: how the schemas differ; None if they do not.
Conflict = Callable[[Schema, int], SchemaConflict | None]


@dataclass(frozen=True)
class Wanted:
    """What the caller of `Hub.producer` asked for.

    Attributes
    ----------
    schema : Schema or None
        None while it is left to the first write.
    hints : mapping
        What is known of the schema before the first write: keyword arguments of `Schema.infer`.
    capacity : int or None
        Slots of the ring; None takes the default.
    history, rate : float or None
        As in `Hub.producer` (in seconds, and slots per second).
    lossless : bool or "single"
        Whether, and how many, lossless readers may attach.
    timeout, evict_after : float or None
        As in `Hub.producer` (in seconds).
    checksum : ChecksumPolicy
        Whether slots carry a checksum.
    """

    schema: Schema | None
    hints: Mapping[str, Any] = field(default_factory=dict)
    capacity: int | None = None
    history: float | None = None
    rate: float | None = None
    lossless: Lossless = True
    timeout: float | None = 5.0
    evict_after: float | None = 1.0
    checksum: ChecksumPolicy = ChecksumPolicy.NONE

    @classmethod
    def infer(
        cls, like: ArrayLike | Mapping[str, Any] | None, dtype: DTypeLike | None, hints: Mapping[str, Any], **ring: Any
    ) -> Self:
        """Work out the schema if `like` or `dtype` tells it, else keep the hints for the first write."""
        schema = None
        if like is None and dtype is None:
            check_hints(**hints)
        else:
            schema = Schema.infer(like, dtype=dtype, **hints)
        wanted = cls(schema, hints, **ring)
        check_size(wanted.capacity, wanted.history, wanted.rate, schema, hints.get("sample_rate"))
        return wanted

    def slots(self, schema: Schema | None) -> int | None:
        """Return how many slots were asked for, for slots of that schema; None for the default."""
        if self.history is None or schema is None or (per_second := rate_of(schema, self.rate)) is None:
            return self.capacity
        return slots_for(self.history, per_second)


class Producer(Bound):
    """The one writer of a channel. Made by `Hub.producer`.

    Any thread may use it, one at a time. Leaving its ``with`` block, dropping the last reference and the normal end of
    the interpreter close it: the channel leaves the broker, readers get what is left and then the end of the stream.

    Attributes
    ----------
    channel : str
        Its name.
    """

    def __init__(
        self,
        channel: str,
        directory: str,
        wanted: Wanted,
        register: Register,
        conflict: Conflict,
        announce: Announce | None = None,
    ) -> None:
        self.channel = channel
        self._directory = directory
        self._wanted = wanted
        self._register = register
        self._conflict = conflict
        self._announce = announce
        self._succession: Succession | None = None
        self._block: DataBlockProducer | None = None
        self._release: Callable[[], object] | None = None
        self._lease: Lease | None = None
        self._closed = False
        # True while the next write decides what the schema is.
        self._undeclared = wanted.schema is None
        if wanted.schema is not None:
            self._open(wanted.schema)

    def write(self, record: object) -> int:
        """Write one slot; the first one decides the schema if none was declared.

        Parameters
        ----------
        record : scalar, tuple, dict, array_like or bytes
            A value of the schema's dtype and shape.

        Returns
        -------
        int
            The slot's seq.

        Raises
        ------
        SchemaMismatch
            If the value does not fit the schema, or would not survive the conversion (see `DataBlockProducer.write`).
        BackpressureTimeout
            If a lossless reader held the ring full for longer than `timeout`; nothing was written then.
        ClosedError, ConcurrentUseError, ForkedProcessError

        Examples
        --------
        >>> with hub.producer("pump", like={"pressure": 0.0, "on": False}) as pump:
        ...     pump.write({"pressure": 1013.2, "on": True}), pump.write((1013.4, True))
        (0, 1)
        """
        block = self._block
        if block is None or self._undeclared:
            block = self._ready(record)
        try:
            return block.write(record)
        except (ClosedError, ConcurrentUseError):
            if (successor := self._successor_of(block)) is None:
                raise
            return successor.write(record)

    def write_many(self, records: object) -> int:
        """Write many slots at once.

        All were measured before the call and get the time at which it begins; blocks of samples, each the time at
        which it ended, as `DataBlockProducer.write_many` says.

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
        SchemaMismatch, BackpressureTimeout, ClosedError, ConcurrentUseError, ForkedProcessError
            As `write`; a `BackpressureTimeout` says in its attribute `written` how many slots were written before.

        Examples
        --------
        >>> with hub.producer("adc", dtype="i2", shape=4) as adc:
        ...     adc.write_many(np.zeros((100, 4), "i2"))
        100
        """
        block = self._ready(first_of(records) if self._undeclared else None)
        try:
            return block.write_many(records)
        except (ClosedError, ConcurrentUseError):
            if (successor := self._successor_of(block)) is None:
                raise
            return successor.write_many(records)

    def slot(self) -> WriteSlot:
        """Open the next slot for writing in place.

        Returns
        -------
        WriteSlot
            A context manager with the slot as its `array`; leaving it publishes the slot, an exception does not.

        Raises
        ------
        InvalidArgument
            If the schema is still unknown.

        Examples
        --------
        >>> camera = hub.producer("camera", dtype="u2", shape=(512, 512), dims=("y", "x"))
        >>> with camera.slot() as slot:
        ...     slot.array[:] = 7  # a driver would be given the array to read into
        >>> camera.next_seq
        1
        """
        return self._ready(None).slot()

    @property
    def schema(self) -> Schema | None:
        """What one slot looks like; None before the first write if none was declared."""
        return None if self._block is None else self._block.schema

    @property
    def closed(self) -> bool:
        """Whether the producer was closed."""
        return self._closed

    @property
    def next_seq(self) -> int:
        """Seq of the next slot to be committed."""
        return 0 if self._block is None else self._block.next_seq

    @property
    def capacity(self) -> int | None:
        """Number of slots of the ring; None before the first write if neither it nor the schema was declared."""
        return self._wanted.capacity if self._block is None else self._block.capacity

    @property
    def history(self) -> float | None:
        """How far back the ring reaches at any moment (in seconds); None if it is not known how many slots come."""
        return None if self._block is None else self._block.history

    @property
    def epoch(self) -> int:
        """1 at first, one more after each takeover and each step of the wall clock; 0 before the segment exists."""
        return 0 if self._block is None else self._block.epoch

    @property
    def took_over(self) -> bool:
        """Whether it took over the segment of a producer that died."""
        return self._block is not None and self._block.took_over

    def stats(self) -> dict[str, int]:
        """Return the counters of the ring.

        Returns
        -------
        dict of str to int
            As `DataBlockProducer.stats`; empty before the first write if the schema was not declared.

        Raises
        ------
        ClosedError
            If the producer was closed.
        ForkedProcessError
            In a forked child of the process that opened it.
        """
        self._check_open()
        return {} if self._block is None else self._block.stats()

    def close(self) -> None:
        """End the stream and withdraw the channel; readers get what is left. Twice is harmless."""
        self._closed = True
        if self._lease is not None:
            self._lease.close()

    def release(self) -> Future[None] | None:
        """Close it without waiting for the broker's confirmation, which is returned if there will be one."""
        self._closed = True
        return None if self._lease is None else self._lease.release()

    def look(self) -> None:
        """Go on in a new segment if the file of this one was removed; to be called about once a second."""
        if self._succession is not None and not self._closed:
            self._succession.look()
            self._block = self._succession.block

    @property
    def succession(self) -> Succession | None:
        """What watches over its file; None before the segment exists."""
        return self._succession

    def _successor_of(self, block: DataBlockProducer) -> DataBlockProducer | None:
        if self._closed or self._succession is None or (found := self._succession.successor_of(block)) is None:
            return None
        self._block = found
        return found

    def difference(self, wanted: Wanted) -> tuple[str, ...]:
        """Say, one line each, what keeps this producer from being re-used for what is wanted now; timeouts do not."""
        lines: list[str] = []
        if wanted.schema is not None and self.schema is not None and wanted.schema != self.schema:
            lines += self.schema.difference(wanted.schema) or (f"{self.schema} before, {wanted.schema} now",)
        slots = wanted.slots(wanted.schema or self.schema)
        if slots not in (None, self.capacity):
            lines.append(f"capacity: {self.capacity} before, {slots} now")
        if wanted.lossless != self._wanted.lossless:
            lines.append(f"lossless: {self._wanted.lossless} before, {wanted.lossless} now")
        if wanted.checksum != self._wanted.checksum:
            lines.append(f"checksum: {self._wanted.checksum.name.lower()} before, {wanted.checksum.name.lower()} now")
        return tuple(lines)

    def reuse(self, wanted: Wanted) -> None:
        """Go on with what is wanted now, which differs in timeouts at most, or leaves the schema to the next write."""
        self._wanted = wanted
        self._undeclared = wanted.schema is None
        if self._block is None and wanted.schema is not None:
            self._open(wanted.schema)
        elif self._block is not None:
            self._block.timeout = wanted.timeout
            self._block.evict_after = wanted.evict_after
            self._block.rate = rate_of(self._block.schema, wanted.rate)

    def _ready(self, record: object) -> DataBlockProducer:
        """The open DataBlock; opened first, from what `record` looks like, if the schema was left to this write."""
        if self._undeclared and record is not None:
            self._check_open()
            schema = Schema.infer(record, **self._wanted.hints)  # type: ignore[arg-type]
            if self._block is None or schema != self._block.schema:
                self._open(schema)
            self._undeclared = False
        if self._block is None:
            self._check_open()
            raise InvalidArgument(
                f"the schema of {self.channel!r} is not known yet: declare it with like=... or dtype=..., "
                "or write a record first"
            )
        return self._block

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"the producer of {self.channel!r} was closed; ask the hub for a new one")

    def _open(self, schema: Schema) -> None:
        if self._block is not None and self._lease is not None:
            lines = self._block.schema.difference(schema) or (f"{self._block.schema} before, {schema} now",)
            announce_replacement(self.channel, lines)
            self._lease.close()
        try:
            block = open_producer(
                self.channel,
                schema,
                directory=self._directory,
                capacity=self._wanted.capacity,
                history=self._wanted.history,
                rate=self._wanted.rate,
                lossless=self._wanted.lossless,
                timeout=self._wanted.timeout,
                evict_after=self._wanted.evict_after,
                checksum=self._wanted.checksum,
            )
        except ChannelBusy as busy:
            if error := self._conflict(schema, busy.pid):
                raise error from None
            raise ChannelBusy(
                f"channel {self.channel!r} already has a producer: {describe_process(busy.pid)}; "
                "close that one first, or choose another name",
                pid=busy.pid,
            ) from None
        self._lease = self._register(block)
        self._block = block
        if self._announce is not None:
            self._succession = Succession(block, self._lease, self._wanted.lossless, self._announce)
        weakref.finalize(self, self._lease.abandon)

    def _instead(self) -> str:
        return (
            f"a channel has one writer: close it here, and open it in the other process, with labhub.connect() and "
            f"hub.producer({self.channel!r}, ...)"
        )

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        from labhub.hub.rich import producer_html

        return producer_html(self)

    def __repr__(self) -> str:
        if self._closed:
            return f"Producer({self.channel!r}, closed)"
        if self._block is None:
            return f"Producer({self.channel!r}, schema left to the first write)"
        reach = "" if self.history is None else f", history={self.history:.4g}"
        return f"Producer({self.channel!r}, {self._block.schema!r}, capacity={self._block.capacity}{reach})"


def announce_replacement(channel: str, lines: tuple[str, ...]) -> None:
    """Tell the user, who re-ran a cell perhaps, that the earlier producer of a channel was closed, and why."""
    facts = event("producer_replaced", channel=channel, differences=lines)
    logger.warning("channel %r: closed its earlier producer, which differs: %s", channel, "; ".join(lines), extra=facts)
