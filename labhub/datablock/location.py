"""Where segments live."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from pathlib import Path

import platformdirs

from labhub.errors import InvalidArgument
from labhub.logs import event
from labhub.names import check_name

logger = logging.getLogger(__name__)

RING_NBYTES = 8 * 1024 * 1024
"""What a ring of default capacity occupies, at most (in bytes)."""
MIN_SLOTS = 8
SMALL_SHM = 256 * 1024 * 1024
"""A /dev/shm below this (in bytes; containers often have 64 MB) gets rings a sixty-fourth of its size."""


def segment_directory(broker_name: str = "default") -> str:
    """Return the directory of a broker's segments: `LABHUB_SHM_DIR`, or ``/dev/shm/labhub-<uid>``, and its name.

    Raises
    ------
    InvalidName
        If the broker's name cannot be a file name.
    InvalidArgument
        If the variable is no text, which the broker could not pass on to others.
    """
    check_name(broker_name, "broker")
    base = os.environ.get("LABHUB_SHM_DIR") or _default_base()
    try:
        base.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"LABHUB_SHM_DIR is not UTF-8: {os.fsencode(base)!r}") from None
    return os.path.join(os.path.abspath(base), broker_name)


@functools.cache
def _default_base() -> str:
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK | os.X_OK):
        return str(shm / f"labhub-{os.getuid()}")
    fallback = str(Path(platformdirs.user_cache_dir("labhub")) / "segments")
    logger.warning(
        "/dev/shm cannot be written; segments go to %s (set LABHUB_SHM_DIR to choose)",
        fallback,
        extra=event("segments_elsewhere", directory=str(fallback)),
    )
    Path(fallback).parent.mkdir(parents=True, exist_ok=True)
    return fallback


def default_capacity(slot_nbytes: int, directory: str) -> int:
    """Return how many slots a ring gets when nobody says: as many as fit 8 MB, at least 8.

    Where the file system is small, rings are, too: a sixty-fourth of it, at least 2 slots.
    """
    total = _file_system_nbytes(directory)
    if total < SMALL_SHM:
        return max(2, total // 64 // (slot_nbytes + 64))
    return max(MIN_SLOTS, RING_NBYTES // (slot_nbytes + 64))


def _file_system_nbytes(directory: str) -> int:
    return shutil.disk_usage(existing(directory)).total


def free_nbytes(directory: str) -> int:
    """Return how many bytes are free where a segment directory is, or will be."""
    return shutil.disk_usage(existing(directory)).free


def existing(directory: str | Path) -> Path:
    """Return a directory, or the closest one above it that is there."""
    path = Path(directory)
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
