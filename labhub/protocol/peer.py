"""Who is at the other end, and what to send there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Who sent a message: the routing id of the connection, and the client's key (z85; empty without CURVE)."""

    routing_id: bytes
    key: str = ""


@dataclass(frozen=True)
class Outgoing:
    """Frames to send to one connection of the client with this key."""

    routing_id: bytes
    frames: list[bytes]
    key: str = ""
