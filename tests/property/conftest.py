"""One set of directories and one broker for all measurements: each has a channel of its own name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import labhub.replaying
from labhub.hub import Hub, connect, named_broker
from tests.conftest import private_directories


@pytest.fixture(autouse=True, scope="module")
def private_dirs() -> Iterator[Path]:
    """Directories for a whole module."""
    with pytest.MonkeyPatch.context() as patch, private_directories(patch) as base:
        yield base


@pytest.fixture(scope="module")
def hub(private_dirs: Path) -> Iterator[Hub]:
    """A hub, and a broker in this process. A replay looks for its first reader more often than usual."""
    with pytest.MonkeyPatch.context() as patch, named_broker(endpoint="tcp://127.0.0.1:0") as broker:
        patch.setattr(sys.modules[labhub.replaying.Replay.__module__], "POLL", 0.002)
        broker.start()
        with connect() as hub:
            yield hub
