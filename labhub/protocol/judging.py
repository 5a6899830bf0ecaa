"""Whether the producer of a registration lives: by its lock where that can be seen, else by its heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from labhub.protocol.messages import HEARTBEAT_EXPIRY, HEARTBEAT_INTERVAL
from labhub.protocol.registry import Registration

Liveness = Literal["alive", "stalled", "dead", "unknown"]
Probe = Callable[[Registration], Literal["alive", "closed", "dead", "unknown"]]
"""Judges the producer of a registration by its segment."""


def judge(probe: Probe, entry: Registration, now: float) -> Liveness | Literal["closed"]:
    """Judge the producer of a registration; ``"closed"`` if it has ended its segment in order."""
    late = None if entry.heartbeat_at is None else now - entry.heartbeat_at
    match probe(entry), late:
        case ("dead" | "closed") as verdict, _:
            return verdict
        case "alive", float() if late > 2 * HEARTBEAT_INTERVAL:
            return "stalled"
        case "alive", _:
            return "alive"
        case _, None:
            return "unknown"
        case _, _:
            return "alive" if late <= HEARTBEAT_EXPIRY else "dead"
