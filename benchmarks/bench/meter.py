"""How near to each other the two CPUs are, before and after each run.

On a virtual machine with two CPUs a cache line took 50 to 70 ns from one to the other and back most of the time, and
for seconds 300 to 380 ns. Two runs that found different ways are not compared: whatever moves the CPUs, or takes one of
them away, is not what a ratio is about.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from bench.compiled import built
from bench.contender import Figures, Place

NAMES = ("line_before_ns", "line_after_ns")
ALIKE = 2.0
"""Two runs are alike if their longest and shortest way differ by no more than this factor."""


@cache
def program() -> Path | None:
    """Compile the meter, once in a process; None where there is no compiler."""
    return built(Path(__file__).parent / "line.cpp") if shutil.which("g++") else None


def reading(meter: Path | None, place: Place, name: str) -> Figures:
    """Measure, as the producer or the first consumer of a run; others do nothing.

    Returns
    -------
    mapping of str to float
        In the producer: nanoseconds there and back, by `name`. Nothing if the two could not meet, as on one CPU.
    """
    if meter is None or place.consumer > 0:
        return {}
    side = "ping" if place.consumer < 0 else "pong"
    command = [str(meter), str(place.directory / name), side]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return {name: float(done.stdout)} if done.stdout else {}


def alike(one: Figures, other: Figures) -> bool:
    """Whether two runs found the CPUs in the same place, all the time; runs that do not know are believed."""
    ways = [run[name] for run in (one, other) for name in NAMES if name in run]
    return not ways or max(ways) <= ALIKE * min(ways)
