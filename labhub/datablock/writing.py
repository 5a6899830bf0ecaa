"""Single slots, open for writing: in place, and for the reference-level API."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.arrays import memory_of
from labhub.bound import Bound
from labhub.errors import ClosedError, ConcurrentUseError, InvalidArgument

if TYPE_CHECKING:
    from labhub.datablock.producer import DataBlockProducer


_NOW = _native.NOW


class WriteSlot(Bound):
    """One slot, open for writing in place. Made by `Producer.slot`.

    Attributes
    ----------
    array : ndarray of shape slot_shape
        The slot itself, in shared memory. It still holds an older slot's values: write all of it, or set `nbytes`.
        What is assigned to it is converted by numpy, without a check: 1e300 becomes inf in a float32, 300 wraps around
        in a uint8, a mask is dropped. `Producer.write` checks.
    nbytes : int
        How many bytes to commit; all of them unless set.
    timestamp_ns : int or None
        Time of the slot (in nanoseconds since the epoch, UTC; 0 is 1970, times before it are negative). None, as at
        first, is the time of its publication. Something else makes leaving the slot raise `InvalidArgument`, and the
        slot is not published.
    seq : int
        The slot's seq.
    """

    array: NDArray[Any]

    def __init__(self, producer: DataBlockProducer) -> None:
        self._producer = producer
        self._native = producer._native
        self._index = -1
        self._seal = False
        self.nbytes = producer._slot_nbytes
        self.timestamp_ns: int | None = None
        self.seq = -1

    def _instead(self) -> str:
        return "send a copy of its array"

    def __enter__(self) -> Self:
        try:  # Ctrl-C can also come when the slot is open already
            self._index = self._producer._claim()
            self.seq = self._native.head
            self.array = self._producer._view(self._index)
            return self
        except ConcurrentUseError:  # the open slot is another one
            raise
        except BaseException:
            self._native.abort()
            raise

    def update_checksum(self) -> None:
        """Have the slot carry the checksum of its bytes as they are when it is published; for ``checksum="manual"``.

        Raises
        ------
        InvalidArgument
            If the channel carries no checksums.
        """
        self._producer._require_checksums()
        self._seal = True

    __exit__ = _native.leave

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._native.abort()
            return
        nbytes, time_ns, producer = self.nbytes, self.timestamp_ns, self._producer
        if type(nbytes) is not int or nbytes < 0:
            nbytes = _checked_length(nbytes)
        time_ns = _NOW if time_ns is None else checked_time(time_ns)
        if self._seal or producer._enforced:
            producer._commit(self._index, nbytes, time_ns, seal=True)
        else:
            self._native.commit(nbytes, time_ns)


def checked_time(time_ns: object) -> int:
    """Return the time of a slot as an int; raise `InvalidArgument` if it is none."""
    whole = isinstance(time_ns, int | np.integer) and not isinstance(time_ns, bool | np.timedelta64)
    if not whole or not -(2**63) < time_ns < 2**63:  # type: ignore[operator]
        raise InvalidArgument(
            f"timestamp_ns is a whole number of nanoseconds since 1970 (UTC) within 64 bits, or None for the time of "
            f"publication, not {time_ns!r}; that of a datetime64 t is int(t.astype('M8[ns]').astype('i8'))"
        )
    return int(time_ns)  # type: ignore[call-overload, no-any-return]


def _checked_length(nbytes: object) -> int:
    if isinstance(nbytes, bool) or not isinstance(nbytes, int | np.integer) or nbytes < 0:
        raise InvalidArgument(f"nbytes is how many bytes of the slot to commit, not {nbytes!r}")
    return int(nbytes)


class WriteHandle(Bound):
    """An open slot of the reference-level API, made by `DataBlockProducer.acquire_write_slot`."""

    def _instead(self) -> str:
        return "send the bytes themselves"

    def __init__(self, producer: DataBlockProducer, index: int) -> None:
        self.producer = producer
        self._slot: NDArray[np.uint8] | None = producer._raw(index)
        self._index = index
        self._nbytes: int | None = None
        self._seal = False

    def write(self, data: bytes | bytearray | memoryview | NDArray[Any], offset: int = 0) -> None:
        """Copy bytes into the slot, from `offset` (in bytes) on.

        A buffer of any dtype is copied as it lies in memory, in C order: it is not converted, and not compared with a
        schema.

        Raises
        ------
        InvalidArgument
            If they do not fit, or this is no buffer, or one of Python objects.
        SchemaMismatch
            If an element of a masked array is masked.
        ClosedError
            If the slot was released before.
        """
        slot = self._open()
        source = memory_of(data)
        if isinstance(offset, bool) or not isinstance(offset, int | np.integer):
            raise InvalidArgument(f"offset is a whole number of bytes, not {offset!r}")
        if offset < 0 or offset + source.size > slot.size:
            raise InvalidArgument(f"{source.size} bytes at {offset} do not fit into a slot of {slot.size} bytes")
        slot[offset : offset + source.size] = source

    def commit(self, nbytes: int) -> None:
        """Say how many bytes are valid; the slot becomes visible when it is released.

        Raises
        ------
        InvalidArgument
            If the slot is not that long.
        """
        slot = self._open()
        if not (_checked_length(nbytes) <= slot.size):
            raise InvalidArgument(f"a slot of {slot.size} bytes cannot commit {nbytes}")
        self._nbytes = int(nbytes)

    def update_checksum(self) -> None:
        """Have the slot carry the checksum of its committed bytes as they are when it is released.

        For `ChecksumPolicy.MANUAL`; under ENFORCED every slot carries one anyway.

        Raises
        ------
        InvalidArgument
            If the segment carries no checksums (`ChecksumPolicy.NONE`).
        ClosedError
            If the slot was released before.
        """
        self._open()
        self.producer._require_checksums()
        self._seal = True

    def release(self) -> None:
        """Publish the slot if it was committed, else abort it. Twice is harmless."""
        if self._slot is None:
            return
        self._slot = None
        if self._nbytes is None:
            self.producer._abort()
        else:
            self.producer._commit(self._index, self._nbytes, seal=self._seal)

    def _open(self) -> NDArray[np.uint8]:
        if self._slot is None:
            raise ClosedError("this slot was released before; acquire another one")
        return self._slot
