"""A live table of the channels of a hub."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import traitlets

from labhub.datablock.diagnostics import diagnose
from labhub.errors import ChannelNotFound, InvalidArgument
from labhub.hub import ChannelInfo, Hub
from labhub.hub.connecting import given_or_default
from labhub.notebook.live import LiveWidget
from labhub.tasks import words
from labhub.words import age, visible

POINTS = 60
"""Points of a sparkline."""

RATE_SECONDS = 4.0
"""Time over which a rate is measured."""


class HubBrowser(LiveWidget):
    """A table of the channels of a hub, with their rates, that keeps itself up to date, twice a second.

    It looks at the segments from outside: neither producers nor readers notice, and it counts as no reader itself.

    Parameters
    ----------
    hub : Hub, optional
        Whose channels; that of ``labhub.connect()`` unless given.
    pattern : str
        Shell pattern of the names; all unless given. The page has a filter of its own.

    Raises
    ------
    BrokerUnreachable
        The broker does not answer.
    InvalidArgument
        The pattern is no text.
    """

    NAME = "browser"
    RATE = 2.0

    pattern = traitlets.Unicode("*", help="shell pattern of the names").tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List(help="what it last showed; the browser fills it in").tag(sync=True)

    def __init__(self, hub: Hub | None = None, pattern: str = "*") -> None:
        if not isinstance(pattern, str):
            raise InvalidArgument(f"a pattern is a text such as 'pump.*', not {pattern!r}")
        hub = given_or_default(hub)
        super().__init__(hub, pattern=pattern, title=f"channels of {hub.name}")
        self._histories: dict[str, _History] = {}
        self._begin()

    def _open(self) -> None:
        self._hub.channels(self.pattern)

    def _release(self) -> None:
        self._histories = {}

    def _update(self) -> tuple[dict[str, Any], list[bytes]] | None:
        now = time.monotonic()
        found = self._hub.channels(self.pattern)
        self._histories = {c.name: self._histories.get(c.name) or _History() for c in found}
        return {"rows": [self._row(c, self._histories[c.name], now) for c in found]}, []

    def _row(self, channel: ChannelInfo, history: _History, now: float) -> dict[str, Any]:
        n_readers, rate, liveness = channel.consumers, None, channel.liveness
        try:
            if channel.directory is not None:  # else it is on another machine
                seen = diagnose(channel.shm_name, channel.directory, slots=False)
                history.add(now, seen.instance_id, seen.head)
                n_readers, rate = len(seen.readers), history.rate
        except ChannelNotFound:  # since the broker was asked
            pass
        except Exception as error:  # noqa: BLE001  # around one channel: its row says so, and the others have theirs
            liveness = f"unreadable: {words(error)}"
        return {
            "name": channel.name,
            "slot": visible(channel.layout or "undeclared"),
            "units": visible(" ".join(dict.fromkeys(channel.units.values()))),
            "rate": rate,
            "rates": list(history.rates),
            "pid": channel.producer_pid,
            "readers": n_readers,
            "age": channel.age_s,
            "ageText": age(channel.age_s),
            "liveness": liveness,
        }

    def _picture_again(self) -> tuple[dict[str, Any], list[bytes]] | None:
        return self._update()

    def _gone(self) -> str:
        return "" if self._hub.connected else "the broker does not answer"

    def __repr__(self) -> str:
        shown = "" if self.pattern == "*" else f", pattern={self.pattern!r}"
        return f"HubBrowser({self._hub.name!r}{shown})"


class _History:
    """How fast one channel has been."""

    def __init__(self) -> None:
        self.rates: deque[float] = deque(maxlen=POINTS)
        self._heads: deque[tuple[float, int]] = deque()
        self._instance = ""

    def add(self, now: float, instance: str, head: int) -> None:
        if instance != self._instance:
            self._heads.clear()
            self._instance = instance
        if self._heads and now > self._heads[-1][0]:
            before, earlier = self._heads[-1]
            self.rates.append((head - earlier) / (now - before))
        self._heads.append((now, head))
        while now - self._heads[0][0] > RATE_SECONDS:
            self._heads.popleft()

    @property
    def rate(self) -> float | None:
        """Slots per second; None while unknown."""
        (begin, first), (end, last) = self._heads[0], self._heads[-1]
        return (last - first) / (end - begin) if end > begin else None
