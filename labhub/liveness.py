"""Who lives: boots, processes, and the locks on segments."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from labhub import _native
from labhub.errors import LabHubError

Verdict = Literal["alive", "dead", "unknown"]


@functools.cache
def boot_id() -> str:
    """Return the random id of this boot of this machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time_of(pid: int) -> float | None:
    """Return when the process started (in seconds since the epoch), or None if there is none, or only a zombie."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None


def place_of(directory: str) -> dict[str, Any]:
    """Return what tells whether a segment directory is this very one: boot id, device and inode.

    Raises
    ------
    OSError
        If the directory is not there.
    """
    status = os.stat(directory)
    return {"boot_id": boot_id(), "shm_dir": directory, "shm_dev": status.st_dev, "shm_ino": status.st_ino}


def is_here(metadata: Mapping[str, Any]) -> bool:
    """Whether the segment directory of a registration is on this machine, and the same one."""
    directory = metadata.get("shm_dir")
    if not isinstance(directory, str) or not boot_id() or metadata.get("boot_id") != boot_id():
        return False
    try:
        here = place_of(directory)
    except (OSError, ValueError):
        return False
    return bool(here["shm_dev"] == metadata.get("shm_dev") and here["shm_ino"] == metadata.get("shm_ino"))


def judge(shm_name: str, metadata: Mapping[str, Any]) -> Verdict:
    """Judge the producer behind a registration by its segment: alive, dead, or unknown where nothing can be proved.

    The lock decides, but only if the segment is this machine's and of the registered instance. A higher epoch means
    that somebody else took the segment over: then the lock is the successor's, and the registered owner is dead.
    """
    instance, epoch = _instance(metadata), metadata.get("epoch")
    if instance is None or not isinstance(epoch, int) or not is_here(metadata):
        return "unknown"
    try:
        found = _native.probe(str(metadata["shm_dir"]), shm_name)
    except LookupError:
        return "dead"  # closed and unlinked
    except LabHubError:
        return "unknown"
    same = found["instance_id"] == instance and found["epoch"] == epoch
    return "alive" if same and found["alive"] and not found["closed"] else "dead"


def bury(shm_name: str, metadata: Mapping[str, Any]) -> bool:
    """Unlink the segment of a registration if its producer is provably dead; whether it was unlinked."""
    instance = _instance(metadata)
    if instance is None or not is_here(metadata):
        return False
    try:
        return _native.unlink_dead(str(metadata["shm_dir"]), shm_name, instance)
    except LabHubError:
        return False


def _instance(metadata: Mapping[str, Any]) -> bytes | None:
    try:
        instance = bytes.fromhex(metadata["instance_id"])
    except (KeyError, TypeError, ValueError):
        return None
    return instance if len(instance) == 16 else None
