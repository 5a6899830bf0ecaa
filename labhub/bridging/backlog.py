"""What an export has read and may have to send, or send again. No I/O."""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from labhub.bridging.wire import Message


class Backlog:
    """Messages between the reader of a ring, which never waits, and the sender, which waits for the network.

    It is bounded: what was sent is forgotten first, then the oldest that was not, which counts as lost. What was sent
    is kept as long as there is room, because a network that is cut takes with it what is on its way.

    Parameters
    ----------
    limit_nbytes : int
        Most memory that it takes (in bytes); the newest message is always kept, and the one that is being sent.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self._limit = limit_nbytes
        self._sent: deque[Message] = deque()
        self._unsent: deque[tuple[float, Message]] = deque()
        self._in_hand: Message | None = None  # the last one of those that were sent, while the network does not have it
        self._nbytes = 0
        self._generation = 0
        self._end: tuple[bytes, int] | None = None
        self._before: tuple[bytes, int] | None = None  # what was taken last: its instance, and the seq behind it
        self._told = False  # whether anybody was told where it goes on
        self._lost_at = -math.inf
        self._changed = threading.Condition()
        self._closed = False
        self.lost = 0
        """Slots that were never sent."""

    def begin(self, instance: bytes, seq: int) -> None:
        """Say which slot of which incarnation will come next, when it is not the one behind the last message."""
        with self._changed:
            self._end = (instance, seq)
            self._changed.notify_all()

    def append(self, message: Message) -> None:
        """Add what was read."""
        with self._changed:
            self._unsent.append((time.monotonic(), message))
            self._nbytes += message.nbytes
            self._end = (message.instance, message.next_seq)
            while self._nbytes > self._limit:
                if self._sent and self._sent[0] is not self._in_hand:
                    oldest = self._sent.popleft()
                elif len(self._unsent) > 1:
                    _, oldest = self._unsent.popleft()
                    self.lost += len(oldest.headers)
                    self._lost_at = time.monotonic()
                else:
                    break
                self._nbytes -= oldest.nbytes
            self._changed.notify_all()

    def take(self, timeout: float) -> tuple[int, int, Message] | None:
        """Return what to send next: generation, seq behind the message before, message; None if none comes in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsent or self._closed, timeout)
            if self._closed or not self._unsent:
                return None
            _, message = self._unsent.popleft()
            self._sent.append(message)
            self._in_hand = message
            before, self._before = self._before, (message.instance, message.next_seq)
            follows = before[1] if before is not None and before[0] == message.instance else 0
            return self._generation, follows, message

    def handed_over(self) -> None:
        """Say that the network has what was taken."""
        with self._changed:
            self._in_hand = None

    def rewind(self, instance: bytes, seq: int, timeout: float) -> tuple[int, bytes, int] | None:
        """Send again from a slot on, as far as it is still there.

        Parameters
        ----------
        instance : bytes
            The incarnation that it belongs to: of a later one everything is sent again. Empty if the other side has
            nothing yet: then it needs nothing that was sent, unless it is the first one to ask.
        seq : int
            The slot that it needs next.
        timeout : float
            How long to wait until anything is known (in seconds).

        Returns
        -------
        tuple of (int, bytes, int) or None
            Generation, incarnation and seq of the next message; None if nothing is known.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._end or self._closed, timeout) or self._end is None:
                return None
            asks_first, self._told = not self._told, True  # what was sent before the first answer, nobody could use
            if instance or (asks_first and self._sent):
                while self._sent and self._is_missing(self._sent[-1], instance, seq):
                    self._unsent.appendleft((time.monotonic(), self._taken_back()))
                self._before = (self._sent[-1].instance, self._sent[-1].next_seq) if self._sent else None
                self._generation += 1
                self._changed.notify_all()
            if not self._unsent:
                return self._generation, *self._end
            first = self._unsent[0][1]
            known = first.instance == instance and first.first_seq <= seq < first.next_seq
            return self._generation, first.instance, seq if known else first.first_seq

    def repeat_end(self) -> None:
        """Send the end of the stream again, if it was sent, and nothing after it.

        Who was cut off when the channel ended has perhaps not got it; with it, it learns what else it has not got.
        """
        with self._changed:
            if not self._unsent and self._sent and self._sent[-1].end:
                self._unsent.append((time.monotonic(), self._taken_back()))
                self._changed.notify_all()

    def _taken_back(self) -> Message:
        """Take the last message out of those that were sent."""
        message = self._sent.pop()
        if message is self._in_hand:
            self._in_hand = None
        return message

    def _is_missing(self, message: Message, instance: bytes, seq: int) -> bool:
        """Whether somebody who needs that slot next has not got this: it is behind it, or of a later incarnation."""
        if message.instance == instance:
            return message.next_seq > seq
        return self._end is not None and message.instance == self._end[0]

    def close(self) -> None:
        """End every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def unsent(self) -> int:
        """Slots that the network does not have yet."""
        return sum(len(m.headers) for m in self._waiting())

    @property
    def unsent_nbytes(self) -> int:
        """Their memory (in bytes)."""
        return sum(m.nbytes for m in self._waiting())

    @property
    def is_empty(self) -> bool:
        """Whether the network has all that was read."""
        return not self._waiting()

    def _waiting(self) -> list[Message]:
        with self._changed:
            return [m for m in (self._in_hand,) if m is not None] + [m for _, m in self._unsent]

    def is_late(self, late: float, recent: float) -> bool:
        """Whether one has been waiting for longer than `late`, or was given up less than `recent` ago (in seconds)."""
        with self._changed:
            now = time.monotonic()
            return now - self._lost_at < recent or (bool(self._unsent) and now - self._unsent[0][0] > late)
