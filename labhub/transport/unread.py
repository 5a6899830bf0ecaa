"""How much waits for each connection that does not read what it was sent."""

from __future__ import annotations

from collections import Counter, deque
from typing import Protocol

MAX_UNREAD_NBYTES = 8 * 1024 * 1024
"""So much may wait for one connection (in bytes), before it gets no more long messages."""
CONNECTIONS = 8
"""So many times as much may wait for all connections of one client key."""
LONG = 4096
"""Messages of fewer bytes are not counted: libzmq's own limit, 1000 messages a connection, bounds them."""


class Sent(Protocol):
    """A message on its way, as pyzmq's ``MessageTracker`` tells of it."""

    @property
    def done(self) -> bool:
        """Whether libzmq has handed it to the kernel, or has given it up with its connection."""


class Unread:
    """The books of the long messages that libzmq holds, as their connections do not take them.

    Parameters
    ----------
    limit : int
        How much may wait for one connection (in bytes).

    Attributes
    ----------
    dropped : int
        Messages that were not sent, as too much waited already.
    """

    def __init__(self, limit: int = MAX_UNREAD_NBYTES) -> None:
        self.limit = limit
        self.dropped = 0
        self._waiting: dict[tuple[bytes, str], deque[tuple[Sent, int]]] = {}
        self._of_connection: Counter[tuple[bytes, str]] = Counter()
        self._of_key: Counter[str] = Counter()

    def add(self, routing_id: bytes, key: str, sent: Sent, nbytes: int) -> None:
        """Enter a message."""
        self._waiting.setdefault((routing_id, key), deque()).append((sent, nbytes))
        self._of_connection[routing_id, key] += nbytes
        self._of_key[key] += nbytes

    def excess(self, routing_id: bytes, key: str) -> str:
        """Why a connection gets no long message now; empty if it does."""
        if self._of_key[key] < self.limit:
            return ""
        self._settle(routing_id, key)
        most = CONNECTIONS * self.limit
        if (waiting := self._of_connection[routing_id, key]) >= self.limit:
            whom = "this connection"
        elif (waiting := self._of_key[key]) >= most:
            self.settle()
            if (waiting := self._of_key[key]) < most:
                return ""
            whom = "the connections of this client key"
        else:
            return ""
        return f"{waiting} bytes of answers wait for {whom} to read them; read them first, or connect anew"

    def settle(self) -> None:
        """Look at all messages: those that have left, or whose connections have ended, count no more."""
        for routing_id, key in list(self._waiting):
            self._settle(routing_id, key)

    def _settle(self, routing_id: bytes, key: str) -> None:
        waiting = self._waiting.get((routing_id, key), deque())
        while waiting and waiting[0][0].done:  # they leave in their order
            _, nbytes = waiting.popleft()
            self._of_connection[routing_id, key] -= nbytes
            self._of_key[key] -= nbytes
        if not waiting:
            self._waiting.pop((routing_id, key), None)
            self._of_connection.pop((routing_id, key), None)
        if not self._of_key[key]:
            del self._of_key[key]

    @property
    def nbytes(self) -> int:
        """How much waits for all connections (in bytes)."""
        return sum(self._of_key.values())
