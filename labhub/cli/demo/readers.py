"""The demo's four consumers: what each makes of the batches that reach it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from labhub.cli.demo.heart import HeartRate
from labhub.cli.demo.sources import torn_frames

if TYPE_CHECKING:
    from labhub.datablock.batch import Batch
    from labhub.schema import Schema

TRACE_SECONDS = 3.0
TRACE_POINTS = 40


@dataclass(frozen=True)
class Finding:
    """What a reader saw in one batch.

    Attributes
    ----------
    now : str
        The latest value, in words.
    trace : tuple of float
        The latest stretch of the signal, the oldest value first.
    wrong : int
        Slots of this batch whose content did not match their seq.
    """

    now: str = ""
    trace: tuple[float, ...] = ()
    wrong: int = 0


def look_at_sensors(batch: Batch) -> Finding:
    """Put the newest record of `host.sensors` in words."""
    record = batch.data[-1]
    names = record.dtype.names
    loads = [float(record[name]) for name in names if name.startswith("cpu")]
    words = [f"cpu {np.mean(loads):.0f} %", f"memory {human(record['memory'])}B"]
    for flow in ("net", "disk"):
        if rates := [float(record[name]) for name in names if name.startswith(flow)]:
            words.append(f"{flow} {human(sum(rates))}B/s")
    if hottest := [float(record[name]) for name in names if name.startswith("temperature")]:
        words.append(f"{max(hottest):.0f} degC")
    return Finding(now=", ".join(words))


class PulseMeter:
    """Computes the heart rate from the samples as they arrive.

    Parameters
    ----------
    schema : Schema
        That of `bio.ppg`, which says the sample rate.
    """

    def __init__(self, schema: Schema) -> None:
        assert schema.sample_rate is not None  # a slot of samples is declared with their rate
        self._sample_rate = schema.sample_rate
        self._meter = HeartRate(schema.sample_rate)

    def __call__(self, batch: Batch) -> Finding:
        """Take in the samples of a batch of `bio.ppg`."""
        beats_per_minute = self._meter.update(batch.data)
        latest = self._meter.window[-round(TRACE_SECONDS * self._sample_rate) :]
        trace = latest[:: max(1, len(latest) // TRACE_POINTS)][-TRACE_POINTS:]
        now = "waiting for three beats" if beats_per_minute is None else f"heart rate {beats_per_minute:.0f} /min"
        return Finding(now=now, trace=tuple(trace.tolist()))


def look_at_frames(batch: Batch) -> Finding:
    """Check every row of the frames of a batch of `cam.frames`."""
    return Finding(now=f"frame {batch.seq[-1]}, every row checked", wrong=torn_frames(batch.data, batch.seq))


@dataclass(frozen=True)
class Reader:
    """One consumer of the demo.

    Attributes
    ----------
    name : str
        What the table calls it.
    channel : str
        What it reads.
    mode : {"stream", "lossless"}
        As in `Hub.consumer`.
    make_look : callable
        Makes, from the schema, the function that turns a batch into a finding.
    max_slots : int or None
        Largest batch.
    delay : float
        How long it dawdles over each batch (in seconds).
    """

    name: str
    channel: str
    mode: Literal["stream", "lossless"]
    make_look: Callable[[Schema], Callable[[Batch], Finding]]
    max_slots: int | None = None
    delay: float = 0.0


READERS = {
    reader.name: reader
    for reader in (
        Reader("monitor", "host.sensors", "stream", lambda _: look_at_sensors),
        Reader("pulse meter", "bio.ppg", "stream", PulseMeter),
        Reader("recorder", "cam.frames", "lossless", lambda _: look_at_frames, max_slots=4),
        Reader("slow display", "cam.frames", "stream", lambda _: look_at_frames, max_slots=1, delay=0.05),
    )
}


def human(value: float) -> str:
    """Write a number with an SI prefix and at most three digits: 1234567 becomes "1.23 M"."""
    for prefix in ("", "k", "M", "G"):
        if not abs(value) >= 999.5:
            return f"{value:.3g} {prefix}" if math.isfinite(value) else "? "
        value /= 1000.0
    return f"{value:.3g} T"
