"""Environments in which the system behaves otherwise: a small library is built and preloaded."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest


def stepped_environment(place: Path, seconds: int = 0) -> dict[str, str]:
    """An environment whose processes share a wall clock that can be stepped; their monotonic clock is the machine's.

    The clock is compiled into a directory, and begins so many seconds beside the machine's.
    """
    offset = place / "offset"
    offset.write_bytes(struct.pack("<q", seconds))
    return os.environ | {"LD_PRELOAD": preloaded("stepped_clock.c", place), "STEPPED_CLOCK": str(offset)}


def lockless_environment(place: Path) -> dict[str, str]:
    """An environment in which locks fail with the errno (an int64) in the file ``$NO_LOCKS``, which is 0 at first."""
    number = place / "errno"
    number.write_bytes(struct.pack("<q", 0))
    return os.environ | {"LD_PRELOAD": preloaded("no_locks.c", place), "NO_LOCKS": str(number)}


def preloaded(name: str, place: Path) -> str:
    """Compile a source of this directory into a library in `place`; its path."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("a library that is preloaded needs a C compiler: apt-get install g++")
    source, library = Path(__file__).with_name(name), (place / name).with_suffix(".so")
    flags = ["-x", "c", "-std=c11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, timeout=120)
    return str(library)
