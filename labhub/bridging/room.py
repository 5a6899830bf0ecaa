"""How much of this machine's shared memory imported channels may take."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from labhub.datablock.location import free_nbytes
from labhub.errors import BridgeError, SegmentSpaceError
from labhub.words import size

SHARE = 0.5
"""The part of the shared memory which is not used by anybody else that imported channels may take."""
SLOT_OVERHEAD, RING_OVERHEAD = 64, 16 * 1024
"""What a ring takes beside its slots: for each of them, and once (in bytes)."""


class NoRoom(BridgeError):
    """A ring is left out, because of a limit."""


class Room:
    """The rings of a bridge's imports, and the limit for all of them.

    Parameters
    ----------
    max_nbytes : int
        Most bytes of all of them.
    directory : str
        Where they are.
    """

    def __init__(self, max_nbytes: int, directory: str) -> None:
        self._max_nbytes = max_nbytes
        self._directory = directory
        self._taken: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def take(self, whose: Hashable, capacity: int, slot_nbytes: int) -> None:
        """Reserve memory for a ring, instead of what the same one had.

        Raises
        ------
        NoRoom
            It would be more than the limit, while others are there.
        SegmentSpaceError
            It alone is more than the limit.
        """
        nbytes = ring_nbytes(capacity, slot_nbytes)
        if nbytes > self._max_nbytes:
            allowed = f"max_nbytes allows {size(self._max_nbytes)} for all imported channels; give the bridge more"
            raise SegmentSpaceError(f"its ring takes {size(nbytes)}, and {allowed}")
        with self._lock:
            self._taken.pop(whose, None)
            if why := self._refusal(nbytes):
                raise NoRoom(why)
            self._taken[whose] = nbytes

    def has(self, nbytes: int) -> bool:
        """Whether a ring of that size would be taken now."""
        with self._lock:
            return not self._refusal(nbytes)

    def give_back(self, whose: Hashable) -> None:
        """End a reservation, if there is one."""
        with self._lock:
            self._taken.pop(whose, None)

    def _refusal(self, nbytes: int) -> str:
        taken = sum(self._taken.values())
        asks = f"its ring takes {size(nbytes)}, and imported channels have {size(taken)}"
        if taken + nbytes > self._max_nbytes:
            return f"{asks} of the {size(self._max_nbytes)} that max_nbytes allows"
        share = int(SHARE * (taken + free_nbytes(self._directory)))
        if taken + nbytes > share:
            return (
                f"{asks} of the {size(share)} of shared memory that they may take, which is half of what others leave"
            )
        return ""


def ring_nbytes(capacity: int, slot_nbytes: int) -> int:
    """Return what a ring takes, about."""
    return capacity * (slot_nbytes + SLOT_OVERHEAD) + RING_OVERHEAD
