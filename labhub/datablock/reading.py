"""Single slots: in place for those who know why, copied for the reference-level API."""

from __future__ import annotations

import struct
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.bound import Bound
from labhub.datablock import checksums
from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.config import nanoseconds
from labhub.errors import ClosedError, ConcurrentUseError, InvalidArgument, TimeoutExpired

if TYPE_CHECKING:
    from labhub.datablock.consumer import DataBlockConsumer

_FIELDS = struct.Struct("<8xqQ4xI32x")
"""Of `SLOT_HEADER`: timestamp_ns, nbytes and epoch, at a tenth of what numpy takes for the fields of one record."""


class ReadSlot(Bound):
    """One slot, read in place. Made by `Consumer.slot`.

    Attributes
    ----------
    array : ndarray of shape slot_shape
        The slot itself, read-only, in shared memory. A lossy consumer's may be overwritten at any moment: what it
        showed is true only once the ``with`` block was left without an error.
    seq, epoch, nbytes, timestamp_ns : int
        From its header.

    Raises
    ------
    Lapped, Evicted
        When it is left, if it was overwritten meanwhile; discard what you read of it.
    ChecksumError
        When it is left, if it was not, and is corrupt (``checksum="enforced"``).
    """

    array: NDArray[Any]
    seq: int
    epoch: int
    nbytes: int
    timestamp_ns: int

    def __init__(self, consumer: DataBlockConsumer, timeout: float | None) -> None:
        self._consumer = consumer
        self._native = consumer._native
        self._timeout = timeout
        self._timeout_ns = nanoseconds(timeout)

    def _instead(self) -> str:
        return "send a copy of its array"

    def __enter__(self) -> Self:
        """Open the slot.

        Raises
        ------
        TimeoutExpired
            If there is none in time.
        EOFError
            If the stream has ended: a `StopIteration` cannot leave a ``with``.
        """
        consumer = self._consumer
        native = self._native
        try:  # Ctrl-C can also come when the slot is open already
            seq = native.acquire(consumer.mode == "latest", self._timeout_ns)
            if seq == _native.STREAM_ENDED:
                raise EOFError(f"the stream of {consumer.name!r} has ended")
            if seq < 0:
                raise TimeoutExpired(f"no new slot on {consumer.name!r} within {self._timeout} s")
            self._copied = native.header()
            self.seq = seq
            self.timestamp_ns, self.nbytes, self.epoch = _FIELDS.unpack(self._copied)
            self.array = consumer._view(seq % native.capacity)
            return self
        except ConcurrentUseError:  # the open slot is another one
            raise
        except KeyboardInterrupt:
            native.cancel()
            raise
        except BaseException:
            native.abandon()
            raise

    @property
    def header(self) -> np.void:
        """All of its header, of dtype `SLOT_HEADER`."""
        header: np.void = np.frombuffer(self._copied, SLOT_HEADER)[0]
        return header

    @property
    def valid(self) -> bool:
        """Whether the slot was not overwritten so far."""
        return self._consumer._native.valid()

    __exit__ = _native.leave

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        consumer = self._consumer
        if kind is not None:
            self._native.abandon()
            return
        actual = self._digest() if consumer.findings is not None else None
        self._native.release()  # looks at the seq: only what was not overwritten can be called corrupt
        if actual is not None and not checksums.carries(self.header, actual):
            raise consumer._found_corrupt(self.header)

    def verify_checksum(self) -> bool:
        """Whether the slot, as it is now, has the checksum that its producer stored; for ``checksum="manual"``.

        The answer is good only if the slot is left without `Lapped` or `Evicted`.

        Raises
        ------
        InvalidArgument
            If the slot carries no checksum.
        """
        checksums.require_stored(np.atleast_1d(self.header))
        return checksums.carries(self.header, self._digest())

    def _digest(self) -> bytes:
        return checksums.digest(self.array.reshape(-1).view(np.uint8)[: self.nbytes])


class ConsumeHandle(Bound):
    """One slot as the reference-level API hands it out: a validated copy, so it pins nothing and is never torn.

    Attributes
    ----------
    seq : int
        The slot's seq.
    timestamp_ns : int
        Its time (in nanoseconds since the epoch, UTC).
    nbytes : int
        How many bytes were committed.
    """

    def _instead(self) -> str:
        return "send the bytes themselves"

    def __init__(self, batch: Batch) -> None:
        self.seq = int(batch.seq[0])
        self.timestamp_ns = int(batch.timestamp_ns[0])
        self.nbytes = int(batch.nbytes[0])
        self._header = batch.headers
        flat = batch.data.reshape(-1).view(np.uint8)
        self._data: NDArray[np.uint8] | None = flat[: self.nbytes]

    def read(self, nbytes: int | None = None) -> bytes:
        """Return exactly the committed bytes, or the first `nbytes` of them.

        Raises
        ------
        InvalidArgument
            If fewer were committed.
        ClosedError
            If the slot was released before.
        """
        data = self._held()
        if nbytes is None:
            return data.tobytes()
        if not 0 <= nbytes <= data.size:
            raise InvalidArgument(f"slot {self.seq} has {data.size} committed bytes, {nbytes} were asked for")
        return data[:nbytes].tobytes()

    def read_into(self, buffer: bytearray | memoryview | NDArray[Any]) -> int:
        """Copy the committed bytes to the beginning of a writable buffer; how many they are.

        Raises
        ------
        InvalidArgument
            If the buffer is read-only or shorter than that.
        ClosedError
            If the slot was released before.
        """
        data = self._held()
        try:
            target = np.frombuffer(buffer, np.uint8)
        except (TypeError, ValueError, BufferError) as error:
            raise InvalidArgument(f"read_into needs a contiguous buffer: {error}") from None
        if not target.flags.writeable or target.size < data.size:
            raise InvalidArgument(f"read_into needs a writable buffer of at least {data.size} bytes")
        target[: data.size] = data
        return data.size

    def verify_checksum(self) -> bool:
        """Whether the committed bytes have the checksum that the producer stored (`ChecksumPolicy.MANUAL`).

        Raises
        ------
        InvalidArgument
            If the slot carries none: the segment has `ChecksumPolicy.NONE`, or the producer did not ask for one.
        ClosedError
            If the slot was released before.
        """
        data = self._held()
        checksums.require_stored(self._header)
        return checksums.matches(self._header[0], data)

    def release(self) -> None:
        """Let go of the slot. Twice is harmless."""
        self._data = None

    reset = release

    def _held(self) -> NDArray[np.uint8]:
        if self._data is None:
            raise ClosedError(f"slot {self.seq} was released before; acquire another one")
        return self._data
