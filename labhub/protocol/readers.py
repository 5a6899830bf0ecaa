"""Which clients have said that they read which channels; how many of them one client key may have."""

from __future__ import annotations

from labhub.errors import ProtocolError
from labhub.protocol.messages import HEARTBEAT_EXPIRY, ErrorCode
from labhub.protocol.registry import Registration

Reader = tuple[str, int]
"""The client's key, and the pid that it reads for."""


class Readers:
    """The registered consumers of one broker: their times are kept with the channel, their number for each key here.

    Parameters
    ----------
    quota : int
        How many consumers one client key may have registered, in all channels together.
    """

    def __init__(self, quota: int) -> None:
        self._quota = quota
        # Of each key, the one that was heard of the longest time ago comes first.
        self._of_key: dict[str, dict[tuple[str, int], Registration]] = {}

    def note(self, entry: Registration, who: Reader, now: float) -> None:
        """Note that a reader of a channel was heard of.

        Raises
        ------
        ProtocolError
            If it is a new one, and its key has as many as it may.
        """
        key, pid = who
        if who not in entry.consumers:
            self._require_room(key, now)
        mine = self._of_key.setdefault(key, {})
        mine.pop((entry.channel_name, pid), None)
        mine[entry.channel_name, pid] = entry
        entry.consumers[who] = now

    def _require_room(self, key: str, now: float) -> None:
        mine = self._of_key.get(key, {})
        while len(mine) >= self._quota:
            (_, pid), entry = next(iter(mine.items()))
            if now - entry.consumers[key, pid] <= HEARTBEAT_EXPIRY:
                raise ProtocolError(
                    f"one client key may have {self._quota} registered consumers; close some first, or raise "
                    "max_consumers_per_key in the broker's settings",
                    code=ErrorCode.QUOTA_EXCEEDED.value,
                )
            self.drop(entry, (key, pid))

    def drop(self, entry: Registration, who: Reader) -> None:
        """Forget a reader of a channel, if there is one."""
        key, pid = who
        if entry.consumers.pop(who, None) is None:
            return
        mine = self._of_key[key]
        del mine[entry.channel_name, pid]
        if not mine:
            del self._of_key[key]

    def expire(self, entry: Registration, now: float) -> None:
        """Forget the readers of a channel that were not heard of for too long."""
        for who in [who for who, at in entry.consumers.items() if now - at > HEARTBEAT_EXPIRY]:
            self.drop(entry, who)

    def forget(self, entry: Registration) -> None:
        """Forget all readers of a channel that goes, or gets another owner."""
        for who in list(entry.consumers):
            self.drop(entry, who)

    def hand_on(self, new: Registration) -> None:
        """Let the readers of a channel be those of its refreshed registration."""
        for key, pid in new.consumers:
            self._of_key[key][new.channel_name, pid] = new

    def __len__(self) -> int:
        return sum(map(len, self._of_key.values()))
