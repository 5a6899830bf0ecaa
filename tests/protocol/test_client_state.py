"""The client's side of a conversation without a socket."""

from __future__ import annotations

import json

from labhub.errors import BrokerUnreachable, ChannelBusy, LabHubError
from labhub.protocol import codec
from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.client_state import ClientState
from labhub.protocol.messages import (
    DeregReq,
    DiscAck,
    DiscReq,
    Error,
    HeartbeatAck,
    Message,
    RegAck,
    RegReq,
)


class Waiting:
    def __init__(self) -> None:
        self.outcomes: list[Message | LabHubError] = []

    def __call__(self, outcome: Message | LabHubError) -> None:
        self.outcomes.append(outcome)


def reg(channel: str = "c", pid: int = 1) -> RegReq:
    return RegReq(channel_name=channel, shm_name=channel, schema_hash="00" * 32, schema_version=1, producer_pid=pid)


def reply(frames: list[bytes], message: Message) -> list[bytes]:
    """Encode `message` as the reply to the request in `frames`."""
    name, body = codec.encode(message)
    return [name, json.dumps(json.loads(body) | {"correlation_id": json.loads(frames[1])["correlation_id"]}).encode()]


def test_replies_find_their_requests_and_late_ones_nobody() -> None:
    state, first, second = ClientState(), Waiting(), Waiting()
    one = state.request(DiscReq(channel_name="a"), 0.0, 1.0, first)
    two = state.request(DiscReq(channel_name="b"), 0.0, 5.0, second)
    state.tick(2.0)
    assert isinstance(first.outcomes[0], BrokerUnreachable)
    answer = DiscAck(shm_name="late", schema_hash="00" * 32, schema_version=1)
    state.receive(reply(one, answer), 2.1)
    assert second.outcomes == []
    state.receive(reply(two, answer), 2.2)
    assert isinstance(second.outcomes[0], DiscAck)
    assert len(first.outcomes) == 1


def test_a_refusal_becomes_a_typed_error_and_is_not_repeated() -> None:
    state, waiting = ClientState(), Waiting()
    frames = state.request(reg(), 0.0, 1.0, waiting)
    state.receive(reply(frames, Error(error_code="CHANNEL_BUSY", message="owned by process 7")), 0.1)
    assert isinstance(waiting.outcomes[0], ChannelBusy)
    assert state.registered == ()
    assert state.reconnected(1.0) == []


def test_everything_is_registered_again_with_a_new_broker() -> None:
    state, broker = ClientState(), BrokerState(probe=lambda _: "unknown")
    for name in ("a", "b"):
        frames = state.request(reg(name), 0.0, 1.0, Waiting())
        state.receive(reply(frames, RegAck(channel_id=name)), 0.0)
    frames = state.request(DeregReq(channel_name="b", producer_pid=1), 0.0, 1.0, Waiting())
    for frames in state.reconnected(1.0):
        broker.receive(Peer(b"p"), frames, 1.0)
    assert broker.registry.names() == ["a"]


def test_heartbeats_are_due_every_two_seconds_and_tell_of_a_broker_without_memory() -> None:
    state = ClientState()
    state.request(reg(), 0.0, 1.0, Waiting())
    (beat,) = state.tick(0.0)
    assert beat[0] == b"HEARTBEAT_REQ"
    assert state.tick(1.9) == []
    (again,) = state.receive(reply(beat, HeartbeatAck(unknown=["c", "never.heard.of"])), 1.9)
    assert again[0] == b"REG_REQ"
    assert len(state.tick(2.0)) == 1


def test_a_heartbeat_names_the_pid_that_registered() -> None:
    state = ClientState()
    state.request(reg("a", 1), 0.0, 1.0, Waiting())
    state.request(reg("b", 2), 0.0, 1.0, Waiting())
    beats = [json.loads(frames[1]) for frames in state.tick(0.0)]
    assert [(b["producer_pid"], b["channels"]) for b in beats] == [(1, ["a"]), (2, ["b"])]


def test_garbage_from_a_broker_is_dropped() -> None:
    state = ClientState()
    for frames in ([], [b"x"], [b"ERROR", b"{"], [b"REG_ACK", b'{"channel_id":"a"}']):
        assert state.receive(frames, 0.0) == []
