"""An environment whose processes share a wall clock that can be stepped; their monotonic clock is the machine's."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest


def stepped_environment(place: Path, seconds: int = 0) -> dict[str, str]:
    """Compile the clock into a directory; it begins so many seconds beside the machine's."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the clock needs a C compiler: apt-get install g++")
    source, library, offset = Path(__file__).with_name("stepped_clock.c"), place / "clock.so", place / "offset"
    flags = ["-x", "c", "-std=c11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, timeout=120)
    offset.write_bytes(struct.pack("<q", seconds))
    return os.environ | {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(offset)}
