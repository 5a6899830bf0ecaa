"""What is left of processes beyond their segments: removed files that are still in use, and kernels' directories."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from labhub import liveness, runtime
from labhub.doctor.finding import Finding, dead
from labhub.doctor.places import segment_base
from labhub.errors import SegmentAccessError
from labhub.words import size

DELETED = " (deleted)"
"""What the kernel puts behind the name of an open file that was removed."""

TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.\d+\.tmp")


def examine_leftovers() -> Iterator[Finding]:
    """Look for both."""
    found = [*_removed_segments(), *_kernels()]
    yield from found or [Finding("leftovers", "ok", "removed segments in use, files of dead kernels", "none")]


def _removed_segments() -> Iterator[Finding]:
    """Segments without a name: one that its producer has closed goes with its last reader, any other is a mishap."""
    for path, (pids, owned, nbytes) in sorted(_open_and_removed().items()):
        users = f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, sorted(pids)))}"
        if owned:
            what = (
                f"was removed while its producer is at work ({users}): nobody can attach any more; close that producer "
                "and open it again"
            )
            yield Finding("leftovers", "problem", path, what)
        else:
            what = f"has ended, but {users} can still read it; its {size(nbytes)} are free once that is over"
            yield Finding("leftovers", "ok", path, what)


def _open_and_removed() -> dict[str, tuple[set[int], bool, int]]:
    """For each removed segment that is open: by whom, whether one of them is its producer, and its size in bytes."""
    base = f"{segment_base()}{os.sep}"
    found: dict[tuple[int, int], tuple[str, set[int], bool, int]] = {}
    for pid in psutil.pids():
        for descriptor, target in _descriptors(pid):
            if not (target.startswith(base) and target.endswith(DELETED)):
                continue
            try:
                status = descriptor.stat()
            except OSError:
                continue
            if status.st_nlink:  # its creator's name for it is gone, not the file
                continue
            _, pids, owned, _ = found.get(key := (status.st_dev, status.st_ino), ("", set(), False, 0))
            owned = owned or liveness.holds_producer(str(descriptor))
            found[key] = _final_path(target.removesuffix(DELETED)), pids | {pid}, owned, status.st_blocks * 512
    # Of several incarnations with one name, the one with a producer matters.
    return {path: rest for path, *rest in sorted(found.values(), key=lambda entry: entry[2])}  # type: ignore[misc]


def _final_path(path: str) -> str:
    """Return the path of a segment that its creator may have opened under a temporary name."""
    directory, name = os.path.split(path)
    temporary = TEMPORARY.fullmatch(name)
    return path if temporary is None else os.path.join(directory, temporary["name"])


def _descriptors(pid: int) -> Iterator[tuple[Path, str]]:
    """The open files of a process, and what they are; of another user's process none."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        path = Path(f"/proc/{pid}/fd/{name}")
        with contextlib.suppress(OSError):  # closed meanwhile
            yield path, os.readlink(path)


def _kernels() -> Iterator[Finding]:
    try:
        directories = runtime.abandoned_directories()
    except (SegmentAccessError, OSError):
        return  # the runtime directory is reported as such
    for path in directories:
        what = "connection files, sockets and logs of background producers, whose notebook was killed"
        yield dead("leftovers", path, what, partial(_remove_abandoned, path))


def _remove_abandoned(path: Path) -> bool:
    if runtime.is_abandoned(path):
        shutil.rmtree(path, ignore_errors=True)
    return not os.path.lexists(path)
