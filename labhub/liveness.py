"""Who lives: boots, processes, and the locks on segments."""

from __future__ import annotations

import fcntl
import functools
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from labhub import _native
from labhub.errors import LabHubError
from labhub.exhausted import raise_if_exhausted

PRODUCER_LOCK = 1 << 62
"""The byte of a segment that its producer, and before that its creator, holds locked (``kProducerLock``)."""

Verdict = Literal["alive", "closed", "dead", "unknown"]


def boot_id() -> str:
    """Return the random id of this boot of this machine; empty where the system has none.

    Raises
    ------
    SegmentSpaceError
        If no file can be opened to read it.
    """
    try:
        return _boot_id()
    except OSError as error:
        raise_if_exhausted(error, "cannot read this machine's boot id")
        return ""


@functools.cache  # of a success only: files that cannot be opened now can be later
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time_of(pid: int) -> float | None:
    """Return when the process started (in seconds since boot), or None if there is none, or only a zombie.

    Field 22 of ``/proc/<pid>/stat`` (proc(5)). Since boot, and not since the epoch as psutil gives it: that changes
    when somebody sets the clock, and with it whether a process is still the one that it was.

    Raises
    ------
    SegmentSpaceError
        If no file can be opened to find out: then nobody is dead.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        raise_if_exhausted(error, f"cannot look at process {pid}")
        return None
    except ValueError:
        return None
    return None if state in "ZX" else int(fields[18]) / os.sysconf("SC_CLK_TCK")


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

    Closed means that its stream has ended, or that the segment is gone: in good order, that lasts until it deregisters.

    The lock decides, but only if the segment is this machine's and of the registered instance. A higher epoch means
    that somebody else took the segment over: then the lock is the successor's, and the registered owner is dead.
    """
    instance, epoch = _instance(metadata), metadata.get("epoch")
    if instance is None or not isinstance(epoch, int):
        return "unknown"
    try:
        if not is_here(metadata):
            return "unknown"
        found = _native.probe(str(metadata["shm_dir"]), shm_name)
    except LookupError:
        return "closed"
    except LabHubError:
        return "unknown"
    # Its own epochs: the one with which it began, and one more for each step of its clock.
    first, last = int(found["opened_epoch"] or found["epoch"]), int(found["epoch"])  # type: ignore[call-overload]
    if found["instance_id"] != instance or not first <= epoch <= last:
        return "dead"
    if found["closed"]:
        return "closed"
    return "alive" if found["alive"] else "dead"


def bury(shm_name: str, metadata: Mapping[str, Any]) -> bool:
    """Unlink the segment of a registration if its producer is provably dead; whether it was unlinked."""
    instance = _instance(metadata)
    if instance is None or not is_here(metadata):
        return False
    return unlink_dead(str(metadata["shm_dir"]), shm_name, instance)


def unlink_dead(directory: str, shm_name: str, instance: bytes) -> bool:
    """Unlink a segment if it is that instance and its producer is provably dead; whether it was unlinked.

    Its lock is taken first, so that nobody can be taking it over meanwhile.
    """
    try:
        return _native.unlink_dead(directory, shm_name, instance)
    except LabHubError:
        return False


def is_orphan(path: str) -> bool:
    """Whether a temporary file in a segment directory is this user's, and nobody is making a segment of it."""
    descriptor = _opened(path)
    if descriptor is None:
        return False
    try:
        return _is_free(descriptor)
    except OSError:  # it cannot be told, so nobody is dead
        return False
    finally:
        os.close(descriptor)


def holds_producer(descriptor_path: str) -> bool:
    """Whether a living process holds the producer's lock of an open file, given as a path in ``/proc/<pid>/fd``.

    Where that cannot be told, it is taken to hold it.
    """
    try:
        descriptor = os.open(descriptor_path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    try:
        return not _is_free(descriptor)
    except OSError:  # it cannot be told, so nobody is dead
        return True
    finally:
        os.close(descriptor)


def unlink_orphan(path: str) -> bool:
    """Unlink such a file, with its lock taken first; whether it was unlinked."""
    descriptor = _opened(path)
    if descriptor is None:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return False
        os.unlink(path)
    except OSError:  # locked, or gone meanwhile
        return False
    finally:
        os.close(descriptor)
    return True


# struct flock: type, whence, start, length and pid; with padding at its end as in C.
FLOCK = "hhqqi0q"


def _flock(kind: int) -> bytes:
    return struct.pack(FLOCK, kind, os.SEEK_SET, PRODUCER_LOCK, 1, 0)


def _is_free(descriptor: int) -> bool:
    """Whether nobody holds the producer's lock of an open segment."""
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK))
    return bool(struct.unpack(FLOCK, found)[0] == fcntl.F_UNLCK)


def _opened(path: str) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None


def _instance(metadata: Mapping[str, Any]) -> bytes | None:
    try:
        instance = bytes.fromhex(metadata["instance_id"])
    except (KeyError, TypeError, ValueError):
        return None
    return instance if len(instance) == 16 else None
