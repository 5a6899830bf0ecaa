"""BLAKE3 checksums of slots: over the committed bytes, 32 bytes in the slot's header."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from labhub.errors import ChecksumError, InvalidArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

STORED = 1
"""Bit of a slot header's flags: its producer has stored a checksum."""
NBYTES = 32
"""Length of a checksum."""


def digest(data: NDArray[np.uint8]) -> bytes:
    """Return the checksum of contiguous bytes, `NBYTES` long."""
    return blake3(data.data).digest()


def carries(header: np.void, checksum: bytes) -> bool:
    """Whether this checksum is the one in a slot's header; False if there is none."""
    return bool(header["flags"] & STORED) and header["checksum"].tobytes() == checksum


def matches(header: np.void, data: NDArray[np.uint8]) -> bool:
    """Whether a slot's bytes, of shape (slot_nbytes,), have the checksum in its header; False if there is none."""
    return carries(header, digest(data[: int(header["nbytes"])]))


def mismatches(headers: NDArray[np.void], data: NDArray[Any]) -> list[int]:
    """Return which slots, by their place in the batch, do not have the checksum in their header, or have none."""
    if not len(data):
        return []
    # Plain lists and slices of bytes: fields of single headers cost ten times as much as the checksum of a small slot.
    content = data.reshape(-1).view(np.uint8).data
    size = len(content) // len(data)
    stored, checksum = headers["flags"] & STORED, headers["checksum"].tobytes()
    return [
        k
        for k, (has_one, nbytes) in enumerate(zip(stored.tolist(), headers["nbytes"].tolist(), strict=True))
        if not has_one
        or blake3(content[k * size : k * size + nbytes]).digest() != checksum[k * NBYTES : (k + 1) * NBYTES]
    ]


def require_stored(headers: NDArray[np.void]) -> None:
    """Raise unless every slot carries a checksum.

    Raises
    ------
    InvalidArgument
    """
    bare = headers["seq"][headers["flags"] & STORED == 0]
    if len(bare):
        raise InvalidArgument(
            f"slot {bare[0]} carries no checksum: its producer stores one with checksum='enforced', or with 'manual' "
            "where it calls update_checksum()"
        )


class Findings:
    """The corrupt slots that one consumer has found.

    Parameters
    ----------
    name : str
        The channel.
    capacity : int
        Slots of its ring: older ones than that are forgotten.

    Attributes
    ----------
    report : callable or None
        Called with the seq of each corrupt slot as it is found, for the first time.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
        self._seqs: set[int] = set()
        self.report: Callable[[int], object] | None = None

    def add(self, header: np.void) -> ChecksumError:
        """Note that a slot is corrupt; the error to raise."""
        seq = int(header["seq"])
        if seq not in self._seqs:
            oldest = max(seq, *self._seqs) - self._capacity if self._seqs else 0
            self._seqs = {s for s in self._seqs if s > oldest} | {seq}
            if self.report is not None:
                self.report(seq)
        why = "does not match its checksum" if header["flags"] & STORED else "carries no checksum, though all should"
        return ChecksumError(
            f"slot {seq} of {self._name!r} {why}: something has written into the segment, or its memory is faulty; "
            "reading goes on with the next slot",
            seq=seq,
        )

    def __contains__(self, seq: object) -> bool:
        return seq in self._seqs
