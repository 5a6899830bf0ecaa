"""How many channels one client key may register, and how much they may take together."""

from __future__ import annotations

from collections import Counter

from labhub.errors import ProtocolError
from labhub.protocol.messages import ErrorCode
from labhub.protocol.registry import Registration


class Quotas:
    """What the registrations of each client key amount to.

    Parameters
    ----------
    channels : int
        Most channels of one key.
    nbytes : int
        Most bytes of all its registrations together, as `Registration.nbytes` counts them.
    """

    def __init__(self, channels: int, nbytes: int) -> None:
        self._most_channels, self._most_nbytes = channels, nbytes
        self._channels: Counter[str] = Counter()
        self._nbytes: Counter[str] = Counter()

    def require_room(self, new: Registration, old: Registration | None) -> None:
        """Raise if a registration is one too many for its key, or too long; the one that it replaces makes room.

        Raises
        ------
        ProtocolError
            With the code ``QUOTA_EXCEEDED``.
        """
        key = new.owner_key
        replaced = old if old is not None and old.owner_key == key else None
        more = new.nbytes - (replaced.nbytes if replaced else 0)
        if replaced is None and self._channels[key] >= self._most_channels:
            why = f"one client key may register {self._most_channels} channels; deregister some first"
        elif more > 0 and self._nbytes[key] + more > self._most_nbytes:
            why = (
                f"the registrations of one client key may take {self._most_nbytes} bytes together; deregister some "
                "channels, or shorten their metadata: attrs, units or names of fields"
            )
        else:
            return
        raise ProtocolError(why, code=ErrorCode.QUOTA_EXCEEDED.value)

    def add(self, entry: Registration) -> None:
        """Count a registration."""
        self._channels[entry.owner_key] += 1
        self._nbytes[entry.owner_key] += entry.nbytes

    def remove(self, entry: Registration) -> None:
        """Count a registration no more."""
        key = entry.owner_key
        self._channels[key] -= 1
        self._nbytes[key] -= entry.nbytes
        if not self._channels[key]:
            del self._channels[key], self._nbytes[key]
