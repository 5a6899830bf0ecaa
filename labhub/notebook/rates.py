"""How fast channels are written, from looks at their segments that nobody notices."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from labhub.datablock.diagnostics import Diagnosis, diagnose
from labhub.datablock.location import segment_directory
from labhub.errors import LabHubError
from labhub.tasks import report

FRESH = 0.5
"""Two looks tell the rate of now if so much is between them (in seconds); else it is the mean since the start."""


@dataclass(frozen=True)
class Rate:
    """Slots per second.

    Attributes
    ----------
    per_second : float
    since : {"last look", "start"}
        Whether that is the mean since the last look, or since the segment was made.
    """

    per_second: float
    since: str

    def __str__(self) -> str:
        return f"{self.per_second:.3g} since {self.since}"


@dataclass(frozen=True)
class _Look:
    instance_id: str
    head: int
    at: float


class RateMeter:
    """Remembers one look for each channel, so that the next one gives the rate in between.

    Parameters
    ----------
    broker : str
        Name of the broker whose channels these are.
    clock : callable
        Monotonic time (in seconds).
    """

    def __init__(self, broker: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._directory = segment_directory(broker)
        self._looks: dict[str, _Look] = {}

    def measure(self, channel: str) -> Rate | None:
        """Return the rate of a channel; None if its segment cannot be looked at."""
        try:
            found = diagnose(channel, self._directory)
        except Exception as error:  # noqa: BLE001  # around one channel: the others have their rates
            if not isinstance(error, LabHubError):
                report("item_failed", error, thread="rates", item=channel)
            self._looks.pop(channel, None)
            return None
        now = _Look(found.instance_id, found.head, self._clock())
        before = self._looks.get(channel)
        if before is None or before.instance_id != now.instance_id:
            self._looks[channel] = now
        elif now.at - before.at >= FRESH:
            self._looks[channel] = now
            return Rate((now.head - before.head) / (now.at - before.at), "last look")
        return mean_rate(found)


def mean_rate(found: Diagnosis) -> Rate:
    """Return the mean rate since a segment was made."""
    seconds = max(1e-9, (time.time_ns() - found.created_ns) / 1e9)
    return Rate((found.head - found.first_seq) / seconds, "start")
