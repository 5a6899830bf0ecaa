"""A broker without a socket, a thread or a clock, and two who talk to it."""

from __future__ import annotations

import json
from typing import Any

from labhub.protocol.broker_state import BrokerState, Outgoing, Peer

ALICE, BOB = Peer(b"a", "key-of-alice"), Peer(b"b", "key-of-bob")
HASH, OTHER = "00" * 32, "11" * 32


class Conversation:
    """A broker whose probe says what the test wants."""

    def __init__(self, **options: Any) -> None:
        self.verdict = "unknown"
        self.buried: list[str] = []
        self.told: list[tuple[bytes, dict[str, Any]]] = []
        self.state = BrokerState(
            probe=lambda _: self.verdict, bury=lambda entry: self.buried.append(entry.channel_name), **options
        )

    def say(self, peer: Peer, kind: str, now: float = 0.0, **fields: Any) -> dict[str, Any]:
        """Send a request and return the reply; what others are told of it is kept in `told`."""
        out, *events = self.state.receive(peer, [kind.encode(), json.dumps(fields).encode()], now)
        assert out.routing_id == peer.routing_id
        self.hear(events)
        return json.loads(out.frames[1]) | {"type": out.frames[0].decode()}

    def tick(self, now: float) -> None:
        self.hear(self.state.tick(now))

    def hear(self, events: list[Outgoing]) -> None:
        for out in events:
            assert out.frames[-2] == b"EVENT"
            self.told.append((out.routing_id, json.loads(out.frames[-1])))

    def register(self, peer: Peer = ALICE, now: float = 0.0, **fields: Any) -> dict[str, Any]:
        defaults = {"channel_name": "c", "shm_name": "c", "schema_hash": HASH, "schema_version": 1, "producer_pid": 1}
        return self.say(peer, "REG_REQ", now, **(defaults | fields))

    def found(self) -> bool:
        return self.say(BOB, "DISC_REQ", channel_name="c")["type"] == "DISC_ACK"
