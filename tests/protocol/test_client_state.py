"""The client's side of a conversation without a socket."""

from __future__ import annotations

import json

import pytest

from labhub.errors import BrokerUnreachable, ChannelBusy, LabHubError, ProtocolError, QuotaExceeded
from labhub.protocol import codec
from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.client_state import MAX_PENDING, ClientState, Gap
from labhub.protocol.messages import (
    HEARTBEAT_INTERVAL,
    MAX_MESSAGE_NBYTES,
    ConsumerRegReq,
    DeregReq,
    DiscAck,
    DiscReq,
    Error,
    Event,
    EventKind,
    HeartbeatAck,
    Message,
    RegAck,
    RegReq,
    UnwatchReq,
    WatchAck,
    WatchReq,
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


def watched(next_serial: int = 0) -> tuple[ClientState, list[Event | Gap], list[bytes]]:
    """A client whose watch was confirmed, what its sink gets, and the request."""
    state, got = ClientState(), []
    frames = state.watch(WatchReq(watch_id="w", pattern="p*"), got.append, 0.0, 1.0, Waiting())
    state.receive(reply(frames, WatchAck(next_serial=next_serial)), 0.0)
    return state, got, frames


def event(serial: int, watch_id: str = "w") -> list[bytes]:
    return codec.encode(Event(watch_id=watch_id, serial=serial, event=EventKind.GONE, channel_name="p"))


def test_a_watch_begins_with_a_gap_and_events_follow_in_order() -> None:
    state, got, _ = watched()
    for serial in (0, 1, 1, 0):  # what comes twice counts once
        state.receive(event(serial), 0.0)
    state.receive(event(2, watch_id="somebody else's"), 0.0)
    assert got[0] == Gap(anew=True)
    assert [e.serial for e in got[1:]] == [0, 1]


def test_a_lost_event_is_noticed_by_the_next_one() -> None:
    state, got, _ = watched()
    state.receive(event(2), 0.0)
    assert got[1] == Gap(anew=False)
    assert got[2].serial == 2


def test_a_lost_event_is_noticed_by_the_next_renewal() -> None:
    state, got, _ = watched()
    (renewal,) = state.tick(HEARTBEAT_INTERVAL)
    assert renewal[0] == b"WATCH_REQ"
    state.receive(reply(renewal, WatchAck(next_serial=0, renewed=True)), 2.0)
    assert got == [Gap(anew=True)]
    (renewal,) = state.tick(2 * HEARTBEAT_INTERVAL)
    state.receive(reply(renewal, WatchAck(next_serial=3, renewed=True)), 4.0)
    assert got == [Gap(anew=True), Gap(anew=False)]
    state.receive(event(3), 4.0)
    assert len(got) == 3


def test_a_broker_without_memory_gets_the_watch_again() -> None:
    state, got, _ = watched()
    broker = BrokerState(probe=lambda _: "unknown")
    (again,) = state.reconnected(1.0)
    (ack,) = broker.receive(Peer(b"p"), again, 1.0)
    state.receive(ack.frames, 1.0)
    assert got == [Gap(anew=True), Gap(anew=True)]
    (_, told) = broker.receive(Peer(b"q"), codec.encode(reg("pump")), 1.0)
    state.receive(told.frames, 1.0)
    assert got[2].channel_name == "pump"


def test_an_ended_watch_is_silent_and_is_not_renewed() -> None:
    state, got, _ = watched()
    state.request(UnwatchReq(watch_id="w"), 0.0, 1.0, Waiting())
    state.receive(event(0), 0.0)
    assert got == [Gap(anew=True)]
    assert state.reconnected(1.0) == []
    assert state.tick(100.0) == []


def test_a_watch_that_was_refused_is_not_kept_up() -> None:
    state, waiting = ClientState(), Waiting()
    frames = state.watch(WatchReq(watch_id="w"), lambda _: None, 0.0, 1.0, waiting)
    state.receive(reply(frames, Error(error_code="QUOTA_EXCEEDED", message="256 watches")), 0.0)
    assert isinstance(waiting.outcomes[0], QuotaExceeded)
    assert state.reconnected(1.0) == []


def test_readers_are_said_again_with_every_heartbeat_while_there_is_a_connection() -> None:
    state = ClientState()
    state.request(ConsumerRegReq(channel_name="c", consumer_pid=7), 0.0, 1.0, Waiting())
    assert state.tick(0.0, connected=False) == []
    assert [frames[0] for frames in state.tick(0.0)] == [b"CONSUMER_REG_REQ"]
    assert state.tick(HEARTBEAT_INTERVAL, connected=False) == []


def test_heartbeats_of_many_channels_fit_into_messages() -> None:
    state = ClientState()
    for k in range(1000):
        state.request(reg(f"{k:0128}"), 0.0, 1.0, Waiting())
    beats = state.tick(0.0)
    assert len(beats) == 3
    assert all(len(frames[1]) < MAX_MESSAGE_NBYTES for frames in beats)


def test_what_a_broker_would_not_take_is_refused_here() -> None:
    state = ClientState()
    big = RegReq(
        channel_name="c",
        shm_name="c",
        schema_hash="00" * 32,
        schema_version=1,
        producer_pid=1,
        metadata={"note": "x" * MAX_MESSAGE_NBYTES},
    )
    with pytest.raises(ProtocolError, match="shorten its metadata"):
        state.request(big, 0.0, 1.0, Waiting())
    assert state.registered == ()
    for _ in range(MAX_PENDING):
        state.request(DiscReq(channel_name="c"), 0.0, 1.0, Waiting())
    with pytest.raises(BrokerUnreachable, match="wait for the broker"):
        state.request(DiscReq(channel_name="c"), 0.0, 1.0, Waiting())
    state.tick(1.0)
    state.request(DiscReq(channel_name="c"), 1.0, 1.0, Waiting())
