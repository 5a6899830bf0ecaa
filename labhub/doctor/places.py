"""Directories and limits: who may look into them, and how much fits."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from labhub.datablock.location import SMALL_SHM, existing, segment_directory
from labhub.doctor.finding import Finding, command, examined
from labhub.runtime import runtime_path
from labhub.transport.curve import data_directory
from labhub.words import size

FEW_DESCRIPTORS = 1024
"""Below this, a note: each producer and each reader of a channel takes one open file."""
LITTLE_SPACE = 16 * 1024 * 1024
"""Free bytes below which the next channel hardly fits: a default ring takes 8 MB."""
MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


def segment_base() -> Path:
    """Return the directory that has one directory of segments for each broker."""
    return Path(segment_directory("default")).parent


def broker_directories() -> list[Path]:
    """Return the directories of segments, one for each broker, in the order of their names."""
    try:
        return sorted(path for path in segment_base().iterdir() if path.is_dir() or path.is_symlink())
    except OSError:
        return []


def examine_places() -> Iterator[Finding]:
    """Look at the segment, runtime and data directories."""
    places = {"segment directory": [segment_base(), *broker_directories()]}
    places |= {"runtime directory": [runtime_path()], "data directory": [data_directory()]}
    for check, paths in places.items():
        found = [finding for path in paths for finding in examined(check, path, _directory(check, path))]
        yield from found or [Finding(check, "ok", str(paths[0]), "yours alone, or not made yet")]
    for path in _stray_files():
        yield Finding("segment directory", "note", str(path), "a foreign file; it is left alone")


def _directory(check: str, path: Path) -> Iterator[Finding]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield Finding(check, "problem", str(path), f"cannot be looked at: {error.strerror}")
        return
    if stat.S_ISLNK(status.st_mode):
        what = f"a symbolic link to {os.readlink(path)}, which somebody else could turn elsewhere"
        yield Finding(check, "problem", str(path), what, command("rm", path))
    elif not stat.S_ISDIR(status.st_mode):
        yield Finding(check, "problem", str(path), "not a directory", command("rm", path))
    elif status.st_uid != os.geteuid():
        what = f"belongs to uid {status.st_uid}, not to you; choose another directory (LABHUB_*_DIR)"
        yield Finding(check, "problem", str(path), what)
    elif stat.S_IMODE(status.st_mode) & 0o077:
        what = f"open to others (mode {stat.S_IMODE(status.st_mode):04o})"
        yield Finding(check, "problem", str(path), what, command("chmod", "700", path))


def _stray_files() -> list[Path]:
    try:
        return sorted(path for path in segment_base().iterdir() if not path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def examine_space() -> Iterator[Finding]:
    """Look at where segments go, and at how much fits there."""
    base = segment_base()
    if not os.environ.get("LABHUB_SHM_DIR") and not base.is_relative_to("/dev/shm"):
        what = "used because /dev/shm cannot be written; name a directory in memory yourself"
        yield Finding("shared memory", "problem", str(base), what, "export LABHUB_SHM_DIR=DIRECTORY")
    place = existing(base)
    kind = _file_system(place)
    if kind and kind not in MEMORY:
        what = f"on {kind}, a disk and no memory: slow, and it wears the disk"
        yield Finding("shared memory", "note", str(base), what, "export LABHUB_SHM_DIR=/dev/shm/DIRECTORY")
    yield from _space(base, *shutil.disk_usage(place))


def _space(base: Path, total: int, used: int, free: int) -> Iterator[Finding]:
    larger = "docker run --shm-size=1g ..., or: mount -o remount,size=1g /dev/shm"
    amount = f"{size(free)} of {size(total)} are free"
    if free < LITTLE_SPACE:
        yield Finding("shared memory", "problem", str(base), f"nearly full: {amount}", larger)
    elif total < SMALL_SHM:
        what = f"small, as containers have it: {amount}; rings are small, too"
        yield Finding("shared memory", "note", str(base), what, larger)
    else:
        yield Finding("shared memory", "ok", str(base), amount)


def _file_system(path: Path) -> str:
    """Return the type of the file system that a directory is on; empty where that cannot be told."""
    try:
        mounts = psutil.disk_partitions(all=True)
    except OSError:
        return ""
    resolved = path.resolve()
    found = [mount for mount in mounts if resolved.is_relative_to(mount.mountpoint)]
    return max(found, key=lambda mount: len(mount.mountpoint)).fstype if found else ""


def examine_limits() -> Iterator[Finding]:
    """Look at how many files may be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = psutil.Process().num_fds()
    if soft == resource.RLIM_INFINITY or soft >= FEW_DESCRIPTORS:
        yield Finding("limits", "ok", "open files", "unlimited" if soft == resource.RLIM_INFINITY else f"up to {soft}")
        return
    most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    what = f"up to {soft}, {used} in use; each producer and each reader takes one"
    severity = "problem" if soft - used < 64 else "note"
    yield Finding("limits", severity, "open files", what, f"ulimit -n {most}" if most > soft else "")  # type: ignore[arg-type]
