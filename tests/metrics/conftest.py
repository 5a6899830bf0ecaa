"""Ports, and the dashboard as Grafana asks for it."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ANY_PORT = "tcp://127.0.0.1:0"


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def board() -> Any:
    """The Grafana dashboard."""
    return json.loads((ROOT / "examples" / "grafana" / "labhub.json").read_text())


def text(port: int) -> str:
    """What the endpoint says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.status == 200
        return str(answer.read().decode())
