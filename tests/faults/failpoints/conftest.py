"""The driver: the core's headers with every fail point in them, compiled once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of the compiled driver."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the fail points need a C++ compiler: apt-get install g++")
    target = tmp_path_factory.mktemp("failpoints") / "driver"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DLABHUB_FAILPOINTS"]
    include = f"-I{ROOT / 'native' / 'include'}"
    command = [compiler, *flags, include, str(Path(__file__).with_name("driver.cpp")), "-o", str(target)]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert compiled.returncode == 0, compiled.stderr
    return str(target)
