"""How channels do, measured between two looks at their segments."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from labhub import diagnose
from labhub.errors import ChannelNotFound
from labhub.tasks import words

if TYPE_CHECKING:
    from labhub.datablock.diagnostics import Diagnosis
    from labhub.hub import ChannelInfo

Where = Literal["here", "remote", "gone", "unreadable"]


@dataclass(frozen=True)
class ChannelSample:
    """One channel at one moment.

    Attributes
    ----------
    name : str
    where : {"here", "remote", "gone", "unreadable"}
        Whether its segment is on this machine, on another one, not there (any more), or here and cannot be examined.
    liveness : {"alive", "stalled", "dead", "unknown"}
        Of its producer; of a segment that is here its lock decides whether it is dead.
    pid, hostname : int, str
        Its producer.
    slots_per_s, bytes_per_s : float or None
        Since the look before; None without one, and where the segment was replaced in between.
    head, capacity : int or None
        Seq of the next slot, and slots of the ring.
    newest_s : float or None
        How long ago the newest slot was written (in seconds); None while there is none.
    fill : float or None
        How much of the ring the slowest lossless reader has still to read, 0 to 1; None without such a reader.
    evictions, timeouts : int or None
        Of lossless readers, and of writes that waited for them in vain; since the counters were reset.
    clock_steps : int or None
        Of the wall clock, that the producer has followed since the counters were reset.
    clock_ahead_s : float or None
        By how much the clock of the slots is ahead of the wall clock (in seconds).
    readers : list of dict
        Each with pid, kind ("lossless" or "lossy"), alive, evicted, lag, received and lost.
    error : str
        Why its segment cannot be examined, if so.
    """

    name: str
    where: Where
    liveness: str
    pid: int
    hostname: str
    slots_per_s: float | None = None
    bytes_per_s: float | None = None
    head: int | None = None
    capacity: int | None = None
    newest_s: float | None = None
    fill: float | None = None
    evictions: int | None = None
    timeouts: int | None = None
    clock_steps: int | None = None
    clock_ahead_s: float | None = None
    readers: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True)
class Sample:
    """All channels at one moment.

    Attributes
    ----------
    broker : str
        Who listed them.
    timestamp_ns : int
        When (in ns since the epoch, UTC).
    interval_s : float or None
        Time since the look before (in seconds); None for the first one.
    broker_error : str
        Why the broker could not be asked this time, if so; the channels are those that it listed before.
    channels : list of ChannelSample
        In the order of their names.
    """

    broker: str
    timestamp_ns: int
    interval_s: float | None
    broker_error: str
    channels: list[ChannelSample]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return asdict(self)


class Sampler:
    """Looks at channels again and again.

    Parameters
    ----------
    broker : str
        Name of the broker, for the samples.
    listed : callable
        Returns the channels as the broker lists them.
    """

    def __init__(self, broker: str, listed: Callable[[], list[ChannelInfo]]) -> None:
        self._broker = broker
        self._listed = listed
        self._channels: list[ChannelInfo] = []
        self._before: dict[str, tuple[float, Diagnosis]] = {}
        self._looked_at: float | None = None

    def look(self) -> Sample:
        """Look once; while the broker does not answer, at the channels that it listed before."""
        error = ""
        try:
            self._channels = self._listed()
        except Exception as failure:  # noqa: BLE001  # the screen says so, and it is tried again
            error = words(failure)
        now = time.monotonic()
        interval = None if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        before, self._before = self._before, {}
        return Sample(
            broker=self._broker,
            timestamp_ns=time.time_ns(),
            interval_s=interval,
            broker_error=error,
            channels=[self._sample(channel, before.get(channel.name)) for channel in self._channels],
        )

    def _sample(self, channel: ChannelInfo, before: tuple[float, Diagnosis] | None) -> ChannelSample:
        facts: dict[str, Any] = {
            "name": channel.name,
            "where": "here",
            "liveness": channel.liveness,
            "pid": channel.producer_pid,
            "hostname": channel.producer_hostname,
        }
        if channel.directory is None:
            return ChannelSample(**facts | {"where": "remote"})
        try:
            found = diagnose(channel.shm_name, channel.directory, slots=False)
            return self._seen(channel.name, facts, before, (time.monotonic(), found))
        except ChannelNotFound:  # closed a moment ago
            return ChannelSample(**facts | {"where": "gone"})
        except Exception as error:  # noqa: BLE001  # around one channel: its line says so, and the others have theirs
            return ChannelSample(**facts | {"where": "unreadable", "error": words(error)})

    def _seen(
        self, name: str, facts: dict[str, Any], before: tuple[float, Diagnosis] | None, now: tuple[float, Diagnosis]
    ) -> ChannelSample:
        _, found = self._before[name] = now
        if not found.alive:
            facts = facts | {"liveness": "dead"}
        lags = [reader.lag for reader in found.readers if reader.kind == "lossless" and not reader.evicted]
        return ChannelSample(
            **facts | {"pid": found.pid} | _rates(before, now),
            head=found.head,
            capacity=found.capacity,
            newest_s=max(0.0, time.time() - found.commit_ns / 1e9) if found.commit_ns else None,
            fill=min(1.0, max(lags) / found.capacity) if lags else None,
            evictions=found.counters["evictions"],
            timeouts=found.counters["timeouts"],
            clock_steps=found.counters["clock_steps"],
            clock_ahead_s=found.clock_ahead_ns / 1e9,
            readers=[
                {key: getattr(r, key) for key in ("pid", "kind", "alive", "evicted", "lag", "received", "lost")}
                for r in found.readers
            ],
        )


def _rates(before: tuple[float, Diagnosis] | None, after: tuple[float, Diagnosis]) -> dict[str, float]:
    if before is None or before[1].instance_id != after[1].instance_id or after[0] <= before[0]:
        return {}
    seconds = after[0] - before[0]
    slots = after[1].head - before[1].head
    written = after[1].counters["bytes_written"] - before[1].counters["bytes_written"]
    rates = {"slots_per_s": slots / seconds}
    if written >= 0:  # else somebody has reset the counters meanwhile
        rates["bytes_per_s"] = written / seconds
    return rates
