"""The command in a process of its own, with a terminal or without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from labhub import runtime
from labhub.hub import start_broker, stop_broker
from labhub.runtime import ConnectionFile

ANY_PORT = "tcp://127.0.0.1:0"
COMMAND = [sys.executable, "-m", "labhub.cli"]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def labhub() -> Run:
    """Run the command to its end."""

    def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False, **options)

    return run


@pytest.fixture
def broker() -> Iterator[ConnectionFile]:
    """A broker in a process of its own."""
    yield start_broker(endpoint=ANY_PORT)
    if runtime.find_live():
        stop_broker()
