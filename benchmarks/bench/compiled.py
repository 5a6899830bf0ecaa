"""Small programs that are compiled for a session."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import labhub

FLAGS = ("-std=c++17", "-O3", "-DNDEBUG")  # as the package itself is compiled
FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
"""Of compiled programs; they vanish with the process."""


@cache
def built(source: Path, *more: str) -> Path:
    """Compile a program, once in a process; with `more` flags, a shared library."""
    folder = tempfile.TemporaryDirectory(prefix="labhub-bench-")
    program = Path(folder.name, source.stem)
    command = ["g++", *FLAGS, *more, f"-I{labhub.get_include()}", str(source), "-o", str(program)]
    subprocess.run(command, check=True, timeout=300)
    FOLDERS.append(folder)
    return program
