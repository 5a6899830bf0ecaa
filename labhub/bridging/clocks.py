"""How far the clock of another machine is from this one's, measured as NTP does (RFC 5905, section 8)."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import zenoh

from labhub.bridging.network import query
from labhub.bridging.wire import Address
from labhub.errors import BridgeError, ProtocolError
from labhub.tasks import contained

SAMPLES = 8
"""Round trips of one measurement; the shortest one counts."""
MOST_UNANSWERED = 2
"""A machine is mute that has left so many questions without an answer: one may be late where packets are lost."""
KEEP = 30.0
"""For how long a measurement is believed (in seconds)."""

MOST_MACHINES = 1024
"""Of so many machines the clock is remembered."""

_TIMES = struct.Struct("<qq")


class Offset(NamedTuple):
    """What the clock there is ahead of the one here.

    Attributes
    ----------
    offset_ns : int
        In nanoseconds; wrong by `round_trip_ns` / 2 at most.
    round_trip_ns : int
        Time that question and answer took (in nanoseconds).
    """

    offset_ns: int
    round_trip_ns: int

    def contradicts(self, earlier: Offset) -> bool:
        """Whether one of the two clocks has drifted, or was set, since an earlier measurement."""
        return abs(self.offset_ns - earlier.offset_ns) > (self.round_trip_ns + earlier.round_trip_ns) / 2


def best(samples: list[tuple[int, int, int, int]]) -> Offset | None:
    """Return the offset by the sample with the shortest round trip.

    Parameters
    ----------
    samples : list of tuple of int
        For each: asked here, received there, answered there, received here (in nanoseconds, each by its own clock).
    """
    found = [Offset(((t1 - t0) + (t2 - t3)) // 2, (t3 - t0) - (t2 - t1)) for t0, t1, t2, t3 in samples]
    return min(found, key=lambda offset: offset.round_trip_ns, default=None)


def serve(session: zenoh.Session, key: str) -> zenoh.Queryable[None]:
    """Answer everybody who asks what time it is here."""

    def answer(question: zenoh.Query) -> None:
        received = time.time_ns()
        with contained("clock", key):  # a thread of Zenoh's: it would print what is raised
            question.reply(key, _TIMES.pack(received, time.time_ns()))

    return session.declare_queryable(key, answer)


class Clocks:
    """The clocks of the other machines.

    Parameters
    ----------
    session : zenoh.Session
    clock : callable
        Seconds that only go forwards.
    """

    def __init__(self, session: zenoh.Session, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._known: dict[str, tuple[float, Offset]] = {}
        self._mute: dict[str, float] = {}
        self._lock = threading.Lock()

    def offset(self, address: Address) -> Offset | None:
        """Return the offset of a machine's clock, measured unless it was a moment ago; None if it is mute."""
        key = address.clock
        with self._lock:
            known, mute = self._known.get(key), self._mute.get(key)
            if known is not None and self._clock() - known[0] < KEEP:
                return known[1]
            if mute is not None and self._clock() - mute < KEEP / 8:
                return None
        measured = self._measure(key)
        with self._lock:
            if measured is None:
                _put(self._mute, key, self._clock())
            else:
                _put(self._known, key, (self._clock(), measured))
        return measured

    def known(self, address: Address) -> Offset | None:
        """Return the last measurement, however old; None if there is none."""
        known = self._known.get(address.clock)
        return None if known is None else known[1]

    def _measure(self, key: str) -> Offset | None:
        samples: list[tuple[int, int, int, int]] = []
        unanswered = 0
        while len(samples) < SAMPLES and unanswered < MOST_UNANSWERED:
            asked = time.time_ns()
            try:
                answer = query(self._session, key)
            except (BridgeError, ProtocolError):
                answer = None
            if answer is None or len(answer) != _TIMES.size:
                unanswered += 1
            else:
                samples.append((asked, *_TIMES.unpack(answer), time.time_ns()))
        return best(samples)


def _put(kept: dict[str, Any], key: str, value: object) -> None:
    """Keep what was found, and forget what is oldest, as anybody may claim to be any number of machines."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > MOST_MACHINES:
        del kept[next(iter(kept))]
