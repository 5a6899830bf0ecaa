"""Messages that have arrived and are not written yet. No I/O."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

INBOX = 32
"""Messages that wait to be written, before the network is made to wait."""
HELD_NBYTES = 64 << 20
"""What all channels of a bridge may hold while the network must not be made to wait (in bytes)."""


class Questions:
    """How many questions of a bridge are under way.

    An answer comes through the same connection as the slots, behind those that were sent before it. So nobody makes the
    connection wait while an answer is expected: it would wait for itself.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.n = 0
        self.held_nbytes = 0


class Inbox(Generic[T]):
    """What has arrived for one channel.

    Parameters
    ----------
    questions : Questions
        Those of the bridge.

    Attributes
    ----------
    dropped : int
        Messages that there was no room for while an answer was expected. The next one shows that they are missing.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._items: deque[tuple[T, int]] = deque()
        self._asking = False
        self._closed = False
        self.dropped = 0

    def put(self, item: T, nbytes: int) -> None:
        """Add what has arrived. It waits while there is no room, unless an answer is expected."""
        questions = self._questions
        with questions.changed:
            while len(self._items) >= INBOX and not self._closed:
                if questions.n and questions.held_nbytes + nbytes <= HELD_NBYTES:
                    break
                if self._asking:
                    self.dropped += 1
                    return
                questions.changed.wait()
            if not self._closed:
                self._items.append((item, nbytes))
                questions.held_nbytes += nbytes

    def take(self) -> T | None:
        """Take what came first; None if there is nothing."""
        with self._questions.changed:
            if not self._items:
                return None
            item, nbytes = self._items.popleft()
            self._questions.held_nbytes -= nbytes
            self._questions.changed.notify_all()
            return item

    def put_back(self, item: T, nbytes: int) -> None:
        """Take back what was taken: it comes first again."""
        with self._questions.changed:
            self._items.appendleft((item, nbytes))
            self._questions.held_nbytes += nbytes

    def waiting(self) -> list[T]:
        """Return what is there; it stays there."""
        with self._questions.changed:
            return [item for item, _ in self._items]

    def ask(self, asking: bool) -> None:
        """Say that an answer is expected, or is not any more."""
        with self._questions.changed:
            self._questions.n += asking - self._asking
            self._asking = asking
            self._questions.changed.notify_all()

    def clear(self) -> None:
        """Forget what is there, and that an answer is expected."""
        self.ask(False)
        while self.take() is not None:
            pass

    def close(self) -> None:
        """Add nothing more; what is there can still be taken."""
        self.ask(False)
        with self._questions.changed:
            self._closed = True
            self._questions.changed.notify_all()
