"""A short run of the frame fuzz; `make verify` sends a hundred thousand messages and sows faults for it to find."""

from __future__ import annotations

import json
import random

import pytest

from labhub.protocol import codec
from labhub.protocol.broker_state import BrokerState, Peer
from verification import frames


@pytest.mark.parametrize("seed", [2, 3])
def test_the_broker_survives_broken_messages(seed: int) -> None:
    outcome = frames.fuzz(4000, seed)
    assert outcome.messages == 4000
    assert outcome.refused["INVALID_REQUEST"] > 1000
    assert outcome.replies["REG_ACK"] > 10


OBJECTS = {
    b"{}",
    b'{"a":1,"a":2}',
}  # of the unknown fields that are tolerated, and every field of some requests has a default


@pytest.mark.parametrize(
    "trap", [trap for trap in frames.TRAPS if trap not in OBJECTS], ids=lambda trap: trap[:12].hex()
)
def test_a_trap_as_the_body_is_an_invalid_request(trap: bytes) -> None:
    state = BrokerState(probe=lambda _: "alive")
    for name in frames.SAMPLES:
        [out] = state.receive(Peer(b"p"), [name.encode(), trap], now=0.0)
        assert out.frames[0] == b"ERROR"
        assert json.loads(out.frames[1])["error_code"] == "INVALID_REQUEST"


def test_the_reply_to_a_bad_correlation_id_can_be_read() -> None:
    body = json.dumps({"channel_name": "a", "correlation_id": "c" * 65}).encode()
    [out] = BrokerState(probe=lambda _: "alive").receive(Peer(b"p"), [b"DISC_REQ", body], now=0.0)
    codec.decode(codec.split(out.frames))
    assert b"INVALID_REQUEST" in out.frames[1]


def test_the_generator_is_deterministic() -> None:
    assert frames.frames_of(random.Random(5)) == frames.frames_of(random.Random(5))
