"""What happens to channels, as an iterator."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from labhub.bound import Bound
from labhub.errors import BrokerUnreachable, ClosedError, ConcurrentUseError, ForkedProcessError, TimeoutExpired
from labhub.hub.roster import ChannelEvent, Roster
from labhub.messenger import Messenger
from labhub.protocol.client_state import Gap
from labhub.protocol.messages import Event
from labhub.tasks import contained

MAX_UNREAD = 1000
"""So many events are kept for somebody who does not read them; then a list takes the place of all of them."""
RETRY_INTERVAL = 0.2
"""How long a list that the broker did not answer is not asked for again (in seconds)."""
ASYNC_SLICE = 0.05
"""How long (in seconds) a cancelled ``async for`` may still sit in the executor."""


class Inbox:
    """What the Messenger's thread brings, until the iterating thread takes it. Bounded."""

    def __init__(self) -> None:
        self._items: deque[Event | Gap] = deque()
        # Reentrant, because the garbage collector may close a watch in the middle of a call.
        self._changed = threading.Condition(threading.RLock())
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody will read any more."""
        return self._closed

    def put(self, item: Event | Gap) -> None:
        """Add an item. What is too much is forgotten, and a gap says so."""
        with self._changed:
            if len(self._items) >= MAX_UNREAD:
                gaps = [kept for kept in (*self._items, item) if isinstance(kept, Gap)]
                self._items.clear()
                item = Gap(anew=any(gap.anew for gap in gaps))
            self._items.append(item)
            self._changed.notify_all()

    def first(self, timeout: float | None) -> Event | Gap | None:
        """Return the first item without removing it; None if there is none in time (in seconds), or it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            return self._items[0] if self._items and not self._closed else None

    def events_behind(self, gap: Gap) -> list[Event]:
        """Return the events between this gap, which comes first, and the next one, without removing them."""
        with self._changed:
            if not self._items or self._items[0] is not gap:
                return []  # they were forgotten, and another gap stands for them
            behind = itertools.takewhile(lambda item: isinstance(item, Event), itertools.islice(self._items, 1, None))
            return [item for item in behind if isinstance(item, Event)]

    def done(self, item: Event | Gap) -> None:
        """Remove the first item, unless it was forgotten meanwhile."""
        with self._changed:
            if self._items and self._items[0] is item:
                self._items.popleft()

    def close(self) -> None:
        """End every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, but not when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)


class Watch(Bound, Iterator[ChannelEvent], AsyncIterator[ChannelEvent]):
    """What happens to the channels of a hub. Made by `Hub.watch`; for ``for``, ``async for`` and ``with``.

    Any thread may use it, one at a time. `close`, in any thread, ends the iteration, and so does closing the hub.
    """

    def __init__(
        self, messenger: Messenger, pattern: str, *, existing: bool, timeout: float | None, reply_timeout: float
    ) -> None:
        self.pattern = pattern
        self._messenger = messenger
        self._timeout = timeout
        self._reply_timeout = reply_timeout
        self._pid = os.getpid()
        self._roster = Roster()
        self._news: deque[ChannelEvent] = deque()
        self._in_use = threading.Lock()
        self._inbox = Inbox()
        watch_id = messenger.watch(pattern, self._inbox.put, reply_timeout)
        self._finalize = weakref.finalize(self, messenger.unwatch, watch_id)
        try:
            self._take(0.0)
        except BaseException:
            self.close()
            raise
        if not existing:
            self._news.clear()

    def _instead(self) -> str:
        return f"in the other process, call labhub.connect() and hub.watch({self.pattern!r}); its events can be sent"

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> ChannelEvent:
        event = self._next(None)
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> ChannelEvent:
        """Wait in an executor thread; a cancelled wait leaves nothing behind and loses no event."""
        stop = threading.Event()
        waiting = asyncio.get_running_loop().run_in_executor(None, self._next, stop)
        try:
            event = await asyncio.shield(waiting)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([waiting])
            if waiting.exception() is None and (late := waiting.result()) is not None:
                self._news.appendleft(late)
            raise
        if event is None:
            raise StopAsyncIteration
        return event

    def _next(self, stop: threading.Event | None) -> ChannelEvent | None:
        """Wait for one event; None once the watch is closed, or `stop` is set."""
        if os.getpid() != self._pid:
            raise ForkedProcessError("this watch belongs to the parent process; connect() and watch in the child")
        if not self._in_use.acquire(blocking=False):
            raise ConcurrentUseError("another thread waits for the events of this watch; make one for each thread")
        try:
            deadline = None if self._timeout is None else time.monotonic() + self._timeout
            while not self._inbox.closed:
                if self._news:
                    return self._news.popleft()
                if stop is not None and stop.is_set():
                    return None
                try:
                    self._take(self._patience(deadline, stop))
                except BrokerUnreachable:
                    self._inbox.pause(RETRY_INTERVAL)
                if not self._news and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutExpired(f"nothing happened to {self.pattern!r} within {self._timeout:g} s")
            return None
        finally:
            self._in_use.release()

    def _patience(self, deadline: float | None, stop: threading.Event | None) -> float | None:
        """How long to wait for the next item now (in seconds); None for ever."""
        now = time.monotonic()
        limits = [limit - now for limit in (deadline, self._roster.due) if limit is not None]
        if stop is not None:
            limits.append(ASYNC_SLICE)
        return max(0.0, min(limits)) if limits else None

    def _take(self, timeout: float | None) -> None:
        """Wait for an item from the Messenger, and turn it into news.

        It is removed only then: an interrupt in between loses nothing, and what comes twice is none the second time.

        Raises
        ------
        BrokerUnreachable
            Events were lost, and the broker does not answer with the list that stands in for them. The gap stays first.
        """
        item = self._inbox.first(timeout)
        now = time.monotonic()
        if isinstance(item, Gap):
            entries, version = self._messenger.read_directory(self.pattern, self._reply_timeout)
            since = self._inbox.events_behind(item)
            self._news += self._roster.compare(entries, version, now, anew=item.anew, since=since)
        elif item is not None:
            with contained("watch", item.channel_name):  # else it would stay the first one for ever
                self._news += self._roster.happened(item)
        self._news += self._roster.expire(now)
        if item is not None:
            self._inbox.done(item)

    def close(self) -> None:
        """End the watch, and the iteration in whatever thread. Twice is harmless."""
        self._inbox.close()
        self._finalize()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._inbox.closed

    def __enter__(self) -> Self:
        if self.closed:
            raise ClosedError("this watch was closed; hub.watch() makes another one")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Watch({self.pattern!r}{', closed' if self.closed else ''})"
