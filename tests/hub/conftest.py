"""A broker in this process that `labhub.connect()` finds, and a second process that talks to it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from labhub.broker import BrokerService
from labhub.hub import Hub, connect, named_broker

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    """A broker named "default"."""
    with named_broker(endpoint=ANY_PORT) as service:
        yield service.start()


@pytest.fixture
def hub(broker: BrokerService) -> Iterator[Hub]:
    """A hub that is connected to it."""
    with connect() as hub:
        yield hub


@pytest.fixture
def run_elsewhere() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start another Python process with a program; the processes are killed at the end, if need be."""
    processes: list[subprocess.Popen[str]] = []

    def run(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(program)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait(60)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
