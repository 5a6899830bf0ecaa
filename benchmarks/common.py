"""What the benchmarks share: interleaved rounds, medians with their spread, a table, a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Measure = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)
Figure = TypeVar("Figure")


def per_call(statement: str, names: dict[str, object], calls: int) -> Measure:
    """Return what times `calls` passes of a statement; the nanoseconds of CPU time of one, the loop included.

    CPU time of this thread, not the wall clock: what other programs of the machine take away does not count.
    """
    source = f"def loop(passes):\n for _ in passes:\n  {statement}"
    scope = dict(names)
    exec(source, scope)  # as timeit does: no call between the loop and the statement

    def measure() -> float:
        passes = range(calls)
        began = time.thread_time_ns()
        scope["loop"](passes)  # type: ignore[operator]
        return (time.thread_time_ns() - began) / calls

    return measure


def interleaved(measures: Mapping[Name, Callable[[], Figure]], rounds: int) -> dict[Name, list[Figure]]:
    """Measure each one once in every round, so that a slow minute of the machine hits all of them.

    Every other round goes backwards: nobody is always the one that comes after a certain other.
    """
    found: dict[Name, list[Figure]] = {name: [] for name in measures}
    for number in range(rounds):
        order = reversed(measures) if number % 2 else iter(measures)
        for name in order:
            found[name].append(measures[name]())
    return found


def summary(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine() -> dict[str, object]:
    """Say on what it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": cpu, "cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Return a table for a terminal."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    )


def report(name: str, rows: list[tuple[str, ...]], result: dict[str, object]) -> None:
    """Print a table and write the JSON file named on the command line, or ``NAME.json`` in the temporary directory."""
    print(aligned(rows))
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir(), f"labhub-{name}.json")
    path.write_text(json.dumps({"benchmark": name, "machine": machine(), **result}, indent=2) + "\n")
    print(f"written to {path}")


@contextmanager
def private_directories() -> Iterator[None]:
    """Give the benchmark segment, runtime, key and settings directories of its own, on tmpfs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="labhub-benchmark-") as base:
        for variable in ("LABHUB_SHM_DIR", "LABHUB_RUNTIME_DIR", "LABHUB_DATA_DIR", "LABHUB_CONFIG_DIR"):
            os.environ[variable] = os.path.join(base, variable.lower())
            os.mkdir(os.environ[variable], 0o700)
        yield
