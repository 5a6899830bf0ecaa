"""The guide's messages, byte for byte, in both framings and both directions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labhub.protocol import codec
from labhub.protocol.broker_state import BrokerState, Peer

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "guide.json").read_text())


def frames(pair: list[str]) -> list[bytes]:
    return [part.encode() for part in pair]


@pytest.mark.parametrize("mark", [[], [b"C"]], ids=["plain", "marked"])
def test_the_broker_answers_byte_for_byte(mark: list[bytes]) -> None:
    state = BrokerState(probe=lambda _: "unknown")
    for vector in VECTORS:
        sent = state.receive(Peer(b"peer"), [*mark, *frames(vector["request"])], now=0.0)
        assert [out.frames for out in sent] == [[*mark, *frames(vector["reply"])]], vector["name"]


@pytest.mark.parametrize("side", ["request", "reply"])
@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_messages_survive_decoding_and_encoding(vector: dict, side: str) -> None:
    message = codec.decode(codec.split(frames(vector[side])))
    assert codec.encode(message) == frames(vector[side])


def test_a_correlation_id_is_echoed_and_unknown_fields_are_tolerated() -> None:
    state = BrokerState(probe=lambda _: "unknown")
    request = [b"DISC_REQ", b'{"channel_name":"a","correlation_id":"17","colour":"blue"}']
    (out,) = state.receive(Peer(b"peer"), request, now=0.0)
    assert json.loads(out.frames[1])["correlation_id"] == "17"
