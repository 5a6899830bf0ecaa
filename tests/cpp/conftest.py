"""The checkout as a wheel, installed where nothing else of it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from labhub import runtime
from labhub.hub import start_broker, stop_broker
from labhub.runtime import ConnectionFile

ROOT = Path(__file__).parents[2]
BUILD_TOOLS = {"pip": "pip", "scikit_build_core": "scikit-build-core", "nanobind": "nanobind", "cmake": "cmake"}


def run(*words: str | Path, seconds: float = 170, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=seconds, check=False, **options)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel and install it; the Python of the environment that has it."""
    missing = [package for module, package in BUILD_TOOLS.items() if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"building a wheel needs {', '.join(missing)}: pip install {' '.join(missing)}")
    base = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    built = run(
        *(*pip, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", base),
        *(f"--config-settings=build-dir={base / 'build'}", ROOT),
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = base.glob("labhub-*.whl")
    venv.create(base / "venv", with_pip=False)
    python = base / "venv" / "bin" / "python"
    put = run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    assert put.returncode == 0, put.stdout + put.stderr
    # labhub itself is the wheel's; what it depends on is this environment's, further down the path.
    place = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    Path(place, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def broker() -> Iterator[ConnectionFile]:
    """Start a broker in a process of its own."""
    yield start_broker(endpoint="tcp://127.0.0.1:0")
    if runtime.find_live():
        stop_broker()
