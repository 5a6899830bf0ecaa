"""The demo in a process of its own."""

import pytest

from tests.demo.running import demos


@pytest.fixture
def start_demo(private_dirs, monkeypatch):
    """Start `labhub demo`, with its temporary files in a place of its own."""
    yield from demos(private_dirs, monkeypatch)
