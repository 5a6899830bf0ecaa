"""Brokers in this process, each a machine of its own for the bridges between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import labhub
from labhub.bridging.span import Bridge
from labhub.hub import Hub, named_broker

Make = Callable[..., Bridge]


def free_endpoint(protocol: str = "tcp") -> str:
    """Return a Zenoh endpoint on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"{protocol}/127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is undone at the end of the test, the last one first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def machine(stack: ExitStack) -> Callable[[str], Hub]:
    """Make the hub of one more machine."""

    def make(name: str) -> Hub:
        stack.enter_context(named_broker(name, "tcp://127.0.0.1:0")).start()
        return stack.enter_context(labhub.connect(name))

    return make


@pytest.fixture
def endpoint() -> str:
    """Where one of the bridges listens."""
    return free_endpoint()


@pytest.fixture
def bridge(stack: ExitStack) -> Make:
    """Make a bridge that is closed at the end."""

    def make(hub: Hub, site: str, **options: object) -> Bridge:
        return stack.enter_context(labhub.bridge(hub=hub, site=site, **options))

    return make
