"""Watches on the broker's side: who is told what, once, and until when."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labhub.protocol.broker_state import Peer
from labhub.protocol.messages import CLOSING_GRACE, HEARTBEAT_EXPIRY, TAKEOVER_GRACE
from tests.protocol.conversation import ALICE, BOB, OTHER, Conversation


class Watched(Conversation):
    """A broker that Bob watches from the beginning."""

    def __init__(self, pattern: str = "*", **options: Any) -> None:
        super().__init__(**options)
        self.say(BOB, "WATCH_REQ", watch_id="w", pattern=pattern)

    def events(self) -> list[tuple[str, str, int]]:
        """Kind, channel and serial of what Bob was told since the last look."""
        told, self.told = self.told, []
        assert all(to == BOB.routing_id for to, _ in told)
        return [(event["event"], event["channel_name"], event["serial"]) for _, event in told]


def test_registering_and_deregistering_are_told_once() -> None:
    talk = Watched()
    talk.register()
    _, event = talk.told[0]
    assert event["watch_id"] == "w"
    assert event["channel"]["channel_name"] == "c"
    assert event["producer_pid"] == 1
    talk.register()  # a refreshed registration is no news
    talk.say(ALICE, "HEARTBEAT_REQ", producer_pid=1, channels=["c"])
    talk.register(BOB)  # nor is one that is refused
    assert talk.events() == [("appeared", "c", 0)]
    talk.say(BOB, "DEREG_REQ", channel_name="c", producer_pid=1)
    assert talk.events() == []
    talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    assert talk.events() == [("gone", "c", 1)]


def test_a_dead_producer_is_told_when_it_dies_and_when_it_is_removed() -> None:
    talk = Watched()
    talk.register()
    talk.events()
    talk.verdict = "dead"
    for now in (1.0, 2.0, TAKEOVER_GRACE):
        talk.say(BOB, "WATCH_REQ", now, watch_id="w")
        talk.tick(now)
    assert talk.events() == [("producer_died", "c", 1)]
    talk.tick(1.0 + TAKEOVER_GRACE)
    assert "process 1, died" in talk.told[0][1]["detail"]
    assert talk.events() == [("gone", "c", 2)]


def test_between_the_end_of_a_segment_and_the_deregistration_nobody_has_died() -> None:
    talk = Watched()
    talk.register()
    talk.verdict = "closed"
    for now in (1.0, 1.9):
        talk.tick(now)
    assert talk.say(BOB, "LIST_REQ", 2.0)["channels"][0]["liveness"] == "dead"
    talk.say(ALICE, "DEREG_REQ", 2.0, channel_name="c", producer_pid=1)
    assert talk.events() == [("appeared", "c", 0), ("gone", "c", 1)]


def test_who_ends_a_segment_and_never_deregisters_is_dead() -> None:
    talk = Watched()
    talk.register()
    talk.verdict = "closed"
    for now in (1.0, 1.0 + CLOSING_GRACE):
        talk.say(BOB, "WATCH_REQ", now, watch_id="w")
        talk.tick(now)
    assert talk.events() == [("appeared", "c", 0), ("producer_died", "c", 1)]
    talk.tick(1.0 + CLOSING_GRACE + TAKEOVER_GRACE)
    assert talk.events() == [("gone", "c", 2)]


def test_a_closed_segment_that_is_made_anew_begins_anew() -> None:
    talk = Watched()
    for now in (1.0, 1.0 + CLOSING_GRACE):
        talk.verdict = "alive"
        talk.register(now=now)
        talk.tick(now)
        talk.verdict = "closed"
        talk.tick(now + 0.5)
    assert talk.events() == [("appeared", "c", 0)]


@pytest.mark.parametrize("refresh", [False, True], ids=["heartbeats", "registers again"])
def test_a_producer_that_was_told_dead_and_is_back(refresh: bool) -> None:
    """Its client was cut off for so long that its heartbeats ran out."""
    talk = Watched()
    talk.register()
    talk.say(ALICE, "HEARTBEAT_REQ", producer_pid=1, channels=["c"])
    now = HEARTBEAT_EXPIRY + 1.0
    talk.say(BOB, "WATCH_REQ", now - 2.0, watch_id="w")
    talk.tick(now)
    version = talk.state.version
    if not refresh:
        talk.say(ALICE, "HEARTBEAT_REQ", now, producer_pid=1, channels=["c"])
    talk.register(now=now)
    for later in (1.0, 2.0):
        talk.tick(now + later)
    assert talk.state.version == version + 1
    assert talk.told[-1][1]["detail"] == "its producer, process 1, is back"
    assert talk.told[-1][1]["channel"]["channel_name"] == "c"
    assert talk.events() == [("appeared", "c", 0), ("producer_died", "c", 1), ("appeared", "c", 2)]


def test_a_takeover_is_one_event_that_says_so() -> None:
    talk = Watched()
    talk.register(metadata={"instance_id": "i", "epoch": 1})
    talk.events()
    talk.register(producer_pid=2, metadata={"instance_id": "i", "epoch": 2})
    assert talk.told[0][1]["detail"] == "taken over from process 1"
    assert talk.events() == [("appeared", "c", 1)]
    talk.register(producer_pid=2, metadata={"instance_id": "i", "epoch": 2})
    assert talk.events() == []


@pytest.mark.parametrize(
    ("fields", "kind"), [({"schema_hash": OTHER}, "schema"), ({"schema_version": 2}, "schema"), ({}, "appeared")]
)
def test_a_dead_producer_that_is_replaced(fields: dict, kind: str) -> None:
    talk = Watched()
    talk.register()
    talk.verdict = "dead"
    talk.events()
    talk.register(producer_pid=2, **fields)
    assert talk.events() == [(kind, "c", 1)]


def test_the_same_owner_with_other_units_is_another_schema() -> None:
    talk = Watched()
    talk.register(metadata={"schema": "a"})
    talk.register(metadata={"schema": "b"})
    assert talk.events() == [("appeared", "c", 0), ("schema", "c", 1)]


def test_a_corrupt_slot_is_told_once_whoever_finds_it() -> None:
    talk = Watched()
    talk.register()
    talk.events()
    for peer, pid in ((BOB, 7), (ALICE, 8), (BOB, 7)):
        talk.say(peer, "CHECKSUM_ERROR_REQ", channel_name="c", consumer_pid=pid, seq=17)
    assert talk.told[0][1]["detail"] == "seq 17"
    assert talk.events() == [("checksum_error", "c", 1)]
    assert talk.say(BOB, "CHECKSUM_ERROR_REQ", channel_name="x", consumer_pid=7, seq=1)["type"] == "ERROR"
    for seq in range(1000):  # what is remembered is bounded
        talk.say(BOB, "CHECKSUM_ERROR_REQ", channel_name="c", consumer_pid=7, seq=seq)
    assert len(talk.state.registry.find_channel("c")._corrupt) == 256


def test_only_names_that_match_are_told() -> None:
    talk = Watched("pump.*")
    talk.register()
    talk.register(channel_name="pump.a")
    assert talk.events() == [("appeared", "pump.a", 0)]


def test_a_watch_ends_when_it_is_not_renewed() -> None:
    talk = Watched()
    reply = talk.say(BOB, "WATCH_REQ", 5.0, watch_id="w")
    assert (reply["renewed"], reply["next_serial"]) == (True, 0)
    talk.tick(5.0 + HEARTBEAT_EXPIRY)
    talk.register(now=15.0)
    assert talk.events() == [("appeared", "c", 0)]
    talk.tick(5.1 + HEARTBEAT_EXPIRY)
    talk.register(channel_name="d", now=16.0)
    assert talk.events() == []
    reply = talk.say(BOB, "WATCH_REQ", 17.0, watch_id="w")
    assert (reply["renewed"], reply["next_serial"]) == (False, 0)


def test_a_watch_belongs_to_a_connection_and_a_pattern() -> None:
    talk = Watched()
    again = Peer(b"bob's next connection", BOB.key)
    assert talk.say(again, "WATCH_REQ", watch_id="w")["renewed"] is False
    assert talk.say(BOB, "WATCH_REQ", watch_id="w", pattern="x")["renewed"] is False
    assert talk.say(Peer(BOB.routing_id, "another key"), "WATCH_REQ", watch_id="w", pattern="x")["renewed"] is False
    assert len(talk.state.watches) == 2


def test_a_routing_id_that_another_client_has_now_hears_nothing_of_the_earlier_one() -> None:
    talk = Watched()
    talk.say(Peer(BOB.routing_id, BOB.key), "DISC_REQ", channel_name="x")
    assert len(talk.state.watches) == 1
    talk.say(Peer(BOB.routing_id, ALICE.key), "DISC_REQ", channel_name="x")
    assert len(talk.state.watches) == 0
    talk.register()
    assert talk.events() == []


def test_unwatching_ends_it_and_twice_is_harmless() -> None:
    talk = Watched()
    assert talk.say(ALICE, "UNWATCH_REQ", watch_id="w")["status"] == "success"
    assert len(talk.state.watches) == 1
    for _ in range(2):
        assert talk.say(BOB, "UNWATCH_REQ", watch_id="w")["status"] == "success"
    talk.register()
    assert talk.told == []


def test_a_key_has_a_quota_of_watches() -> None:
    talk = Watched(max_watches_per_key=2)
    talk.say(BOB, "WATCH_REQ", watch_id="v")
    reply = talk.say(BOB, "WATCH_REQ", watch_id="u")
    assert reply["error_code"] == "QUOTA_EXCEEDED"
    assert "2 watches" in reply["message"]
    assert talk.say(BOB, "WATCH_REQ", watch_id="w")["renewed"] is True
    assert talk.say(ALICE, "WATCH_REQ", watch_id="u")["status"] == "success"
    talk.say(BOB, "UNWATCH_REQ", watch_id="w")
    assert talk.say(BOB, "WATCH_REQ", watch_id="u")["status"] == "success"


def test_the_watches_of_a_revoked_key_end() -> None:
    allowed = {ALICE.key, BOB.key}
    talk = Watched(allowed=allowed.__contains__)
    allowed.remove(BOB.key)
    talk.register()
    assert talk.told == []
    assert len(talk.state.watches) == 0
    allowed.add(BOB.key)
    talk.say(BOB, "WATCH_REQ", watch_id="w")
    allowed.remove(BOB.key)
    talk.tick(0.0)
    assert len(talk.state.watches) == 0


def test_whoever_sends_the_mark_gets_it_with_events() -> None:
    talk = Conversation()
    talk.state.receive(BOB, [b"C", b"WATCH_REQ", b'{"watch_id":"w"}'], 0.0)
    body = {"channel_name": "c", "shm_name": "c", "schema_hash": OTHER, "schema_version": 1, "producer_pid": 1}
    _, event = talk.state.receive(ALICE, [b"REG_REQ", json.dumps(body).encode()], 0.0)
    assert event.frames[:2] == [b"C", b"EVENT"]
