"""What is in the segment directories: live segments, dead ones, and what does not belong there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from labhub import liveness
from labhub.datablock.diagnostics import Diagnosis, diagnose
from labhub.doctor.finding import Finding, command, dead, examined
from labhub.doctor.live import examine_live
from labhub.doctor.places import broker_directories
from labhub.errors import ChannelNotFound, IncompatibleSegment, LabHubError, SegmentAccessError, VersionMismatch
from labhub.names import NAME
from labhub.words import size

CHECK = "segments"

Registered = Mapping[str, str]
"""The name of the channel that a broker knows, for each instance id (in hexadecimal)."""


def examine_segments(registered: Registered) -> Iterator[Finding]:
    """Look at each file of each segment directory."""
    live = 0
    for directory in broker_directories():
        for path in _files(directory):
            findings = list(examined(CHECK, path, _file(path, registered)))
            live += all(finding.check == "channels" for finding in findings)
            yield from findings
    yield Finding(CHECK, "ok", "live segments", str(live))


def _files(directory: Path) -> list[Path]:
    if directory.is_symlink():  # reported as such; what it leads to is none of our business
        return []
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _file(path: Path, registered: Registered) -> Iterator[Finding]:
    """Judge one file; nothing is found of one that is in good use, or gone."""
    try:
        status = path.lstat()
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        severity = "problem" if NAME.fullmatch(path.name) else "note"
        what = "not a file of yours; no channel can have this name" if severity == "problem" else "not a file of yours"
        yield Finding(CHECK, severity, str(path), what + "; it is left alone", command("rm", path))  # type: ignore[arg-type]
    elif path.name.startswith(".") and path.name.endswith(".tmp"):
        if liveness.is_orphan(str(path)):  # its maker holds the lock while it lives
            what = "the beginning of a segment, whose maker died"
            yield dead("temporaries", path, what, partial(liveness.unlink_orphan, str(path)))
    elif not NAME.fullmatch(path.name):
        yield Finding(CHECK, "note", str(path), "a foreign file; it is left alone")
    else:
        yield from _segment(path, registered)


def _segment(path: Path, registered: Registered) -> Iterator[Finding]:
    try:
        found = diagnose(path.name, str(path.parent), slots=False)
    except ChannelNotFound:
        return
    except LabHubError as error:
        yield _unreadable(path, error)
        return
    if found.alive:
        yield from examine_live(found, known=found.instance_id in registered)
    else:
        yield _dead(path, found, registered)


def _unreadable(path: Path, error: LabHubError) -> Finding:
    what = str(error).removeprefix(f"{path} ")
    match error:
        case VersionMismatch():
            return Finding(CHECK, "problem", str(path), f"{what}; it is left alone", command("rm", path))
        case IncompatibleSegment():
            what += "; it is left alone, and no channel can have this name"
            return Finding(CHECK, "problem", str(path), what, command("rm", path))
        case SegmentAccessError() if error.path == str(path):  # else it is the directory's fault
            return Finding(CHECK, "problem", str(path), what, command("chmod", "600", path))
    return Finding(CHECK, "problem", str(path), what)


def _dead(path: Path, found: Diagnosis, registered: Registered) -> Finding:
    half = " in the middle of a write (nobody can read that slot)" if _half_written(path) else ""
    state = f"its producer, process {found.pid}, is dead{half} ({size(found.nbytes)})"
    if channel := registered.get(found.instance_id):
        what = f"{state}; the broker removes channel {channel!r} in 10 seconds, unless a producer takes it over"
        return Finding(CHECK, "note", str(path), what)
    instance = bytes.fromhex(found.instance_id)
    remedy = partial(liveness.unlink_dead, str(path.parent), path.name, instance)
    return dead(CHECK, path, f"{state}, and no broker knows it", remedy)


def _half_written(path: Path) -> bool:
    """Whether a slot was being written when the producer died. Its successor writes that one anew."""
    try:
        return diagnose(path.name, str(path.parent)).slots["writing"] > 0
    except LabHubError:  # taken over or removed meanwhile
        return False
