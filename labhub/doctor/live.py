"""Live segments that do not do well: stopped processes, dead and evicted readers, timestamps ahead of the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from labhub.datablock.diagnostics import Diagnosis, Reader
from labhub.doctor.finding import Finding, command

CHECK = "channels"
AHEAD_NS = 2_000_000_000
"""Further than this from the clock, a timestamp was taken by one that somebody has set since (in ns)."""


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped, by a signal or a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def examine_live(found: Diagnosis, *, known: bool) -> Iterator[Finding]:
    """Look at a segment with a living producer; a silent one that a broker knows was told of already."""
    if not known and is_stopped(found.pid):
        what = f"its producer, process {found.pid}, is stopped"
        yield Finding(CHECK, "note", found.path, what, command("kill", "-CONT", str(found.pid)))
    for reader in found.readers:
        # The line of a dead reader that was evicted is free for the next one.
        if reader.kind == "lossless" and (reader.alive or not reader.evicted):
            yield from _reader(found, reader)
    ahead = max(found.created_ns, found.commit_ns) - time.time_ns()
    if ahead > AHEAD_NS:
        what = (
            f"its timestamps are {ahead / 1e9:.0f} s ahead of the clock, which was set back since; those that the "
            "producer takes from the clock follow it in a new epoch, at the latest a second later"
        )
        yield Finding(CHECK, "note", found.path, what)


def _reader(found: Diagnosis, reader: Reader) -> Iterator[Finding]:
    who = f"a lossless reader, process {reader.pid}"
    if not reader.alive:
        what = f"{who}, died {reader.lag} slots behind; the producer evicts it once the ring is full"
        yield Finding(CHECK, "note", found.path, what)
    elif reader.evicted:
        what = f"{who}, held the producer up and was evicted; it is told of its loss when it reads on"
        fix = command("kill", "-CONT", str(reader.pid)) if is_stopped(reader.pid) else ""
        yield Finding(CHECK, "note", found.path, what, fix)
    elif is_stopped(reader.pid):
        what = f"{who}, is stopped, {reader.lag} of {found.capacity} slots behind: it will hold the producer up"
        yield Finding(CHECK, "note", found.path, what, command("kill", "-CONT", str(reader.pid)))
