"""The broker and the hub of the hub's own tests."""

from __future__ import annotations

from tests.hub.conftest import broker, hub

__all__ = ["broker", "hub"]
