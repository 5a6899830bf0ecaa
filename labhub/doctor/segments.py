"""What is in the segment directories: live segments, dead ones, and what does not belong there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from labhub import liveness
from labhub.datablock.diagnostics import Diagnosis, diagnose
from labhub.doctor.finding import Finding, command, dead
from labhub.doctor.places import broker_directories
from labhub.errors import ChannelNotFound, IncompatibleSegment, LabHubError, SegmentAccessError, VersionMismatch
from labhub.names import NAME

CHECK = "segments"

Registered = Mapping[str, str]
"""The name of the channel that a broker knows, for each instance id (in hexadecimal)."""


def examine_segments(registered: Registered) -> Iterator[Finding]:
    """Look at each file of each segment directory."""
    live = 0
    for directory in broker_directories():
        for path in _files(directory):
            found = _file(path, registered)
            live += found is None
            if found is not None:
                yield found
    yield Finding(CHECK, "ok", "live segments", str(live))


def _files(directory: Path) -> list[Path]:
    if directory.is_symlink():  # reported as such; what it leads to is none of our business
        return []
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _file(path: Path, registered: Registered) -> Finding | None:
    """Judge one file; None if it is in use, or gone."""
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        severity = "problem" if NAME.fullmatch(path.name) else "note"
        what = "not a file of yours; no channel can have this name" if severity == "problem" else "not a file of yours"
        return Finding(CHECK, severity, str(path), what + "; it is left alone", command("rm", path))  # type: ignore[arg-type]
    if path.name.startswith(".") and path.name.endswith(".tmp"):
        return _temporary(path)
    if not NAME.fullmatch(path.name):
        return Finding(CHECK, "note", str(path), "a foreign file; it is left alone")
    try:
        found = diagnose(path.name, str(path.parent), slots=False)
    except ChannelNotFound:
        return None
    except LabHubError as error:
        return _unreadable(path, error)
    return None if found.alive else _dead(path, found, registered)


def _unreadable(path: Path, error: LabHubError) -> Finding:
    what = str(error).removeprefix(f"{path} ")
    match error:
        case VersionMismatch():
            return Finding(CHECK, "problem", str(path), f"{what}; it is left alone", command("rm", path))
        case IncompatibleSegment():
            what += "; it is left alone, and no channel can have this name"
            return Finding(CHECK, "problem", str(path), what, command("rm", path))
        case SegmentAccessError():
            return Finding(CHECK, "problem", str(path), what, command("chmod", "600", path))
    return Finding(CHECK, "problem", str(path), what)


def _temporary(path: Path) -> Finding | None:
    """Judge the beginning of a segment; its maker holds the lock while it lives."""
    if not liveness.is_orphan(str(path)):
        return None
    what = "the beginning of a segment, whose maker died"
    return dead("temporaries", path, what, partial(liveness.unlink_orphan, str(path)))


def _dead(path: Path, found: Diagnosis, registered: Registered) -> Finding:
    state = f"its producer, process {found.pid}, is dead ({found.nbytes / 1e6:.1f} MB)"
    if channel := registered.get(found.instance_id):
        what = f"{state}; the broker removes channel {channel!r} in 10 seconds, unless a producer takes it over"
        return Finding(CHECK, "note", str(path), what)
    instance = bytes.fromhex(found.instance_id)
    remedy = partial(liveness.unlink_dead, str(path.parent), path.name, instance)
    return dead(CHECK, path, f"{state}, and no broker knows it", remedy)
