"""Processes that are really killed, and the findings about what they leave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub.datablock.location import segment_directory
from labhub.doctor import Finding, examine

PRODUCER = """
    import sys, time
    from labhub.datablock.location import segment_directory
    from labhub.datablock.producer import open_producer
    from labhub.schema import Schema
    producer = open_producer("pump", Schema.infer(dtype="f8"), directory=segment_directory(), capacity=8)
    producer.write(1.0)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start another Python process, and wait until it says that it is ready; it is killed at the end, if need be."""
    processes: list[subprocess.Popen[str]] = []

    def start(program: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(program)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def producer(elsewhere: Callable[[str], subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    """A producer of the channel "pump" that no broker knows."""
    process = elsewhere(PRODUCER)
    yield process
    process.kill()
    process.wait(60)
    (Path(segment_directory()) / "pump").unlink(missing_ok=True)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process so that it can tidy nothing up."""
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def troubles() -> list[Finding]:
    """All findings that are not well."""
    return [finding for finding in examine() if finding.severity != "ok"]


def trouble() -> Finding:
    """Return the only finding that is not well."""
    found = troubles()
    assert len(found) == 1, found
    (finding,) = found
    return finding
