"""What one client key may have: channels, bytes of registrations, watches, registered consumers, unread answers."""

from __future__ import annotations

from typing import Any

import pytest

from labhub.protocol.messages import HEARTBEAT_EXPIRY
from tests.protocol.conversation import ALICE, BOB, OTHER, Conversation


def reads(talk: Conversation, pid: int, now: float = 0.0, channel: str = "c", **fields: Any) -> dict[str, Any]:
    return talk.say(BOB, "CONSUMER_REG_REQ", now, channel_name=channel, consumer_pid=pid, **fields)


def counted(talk: Conversation, now: float = 0.0) -> int:
    """How many readers the broker counts for all keys; the books of each channel must agree."""
    total = sum(len(entry.consumers) for entry in talk.state.registry)
    assert len(talk.state._readers) == total
    return total


@pytest.fixture
def few() -> Conversation:
    talk = Conversation(max_consumers_per_key=3)
    talk.register(channel_name="c")
    talk.register(channel_name="d")
    for pid, channel in ((1, "c"), (2, "c"), (1, "d")):
        assert reads(talk, pid, channel=channel)["status"] == "success"
    return talk


def test_a_key_has_a_quota_of_consumers_over_all_channels(few: Conversation) -> None:
    for channel in "cd":
        refused = reads(few, 9, channel=channel, correlation_id="7")
        assert (refused["error_code"], refused["correlation_id"]) == ("QUOTA_EXCEEDED", "7")
        assert "may have 3 registered consumers" in refused["message"]
        assert "close some first" in refused["message"]
        assert "max_consumers_per_key" in refused["message"]
    assert few.state.refused["QUOTA_EXCEEDED"] == 2
    assert few.state.metrics(0.0)["refused.QUOTA_EXCEEDED"] == 2.0
    assert reads(few, 1)["status"] == "success"  # to be heard of again is free
    assert counted(few) == 3


def test_another_key_is_not_affected(few: Conversation) -> None:
    assert few.say(ALICE, "CONSUMER_REG_REQ", channel_name="c", consumer_pid=9)["status"] == "success"


def test_whoever_leaves_makes_room(few: Conversation) -> None:
    few.say(BOB, "CONSUMER_DEREG_REQ", channel_name="c", consumer_pid=2)
    few.say(BOB, "CONSUMER_DEREG_REQ", channel_name="c", consumer_pid=2)
    assert reads(few, 9)["status"] == "success"
    assert reads(few, 10)["error_code"] == "QUOTA_EXCEEDED"


def test_a_channel_that_goes_makes_room(few: Conversation) -> None:
    few.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    assert counted(few) == 1
    for pid in (8, 9):
        assert reads(few, pid, channel="d")["status"] == "success"
    few.verdict = "dead"
    few.tick(20.0)
    few.tick(40.0)
    assert counted(few) == 0


def test_a_dead_producers_successor_begins_without_readers(few: Conversation) -> None:
    few.verdict = "dead"
    few.register(channel_name="c", producer_pid=2, schema_hash=OTHER)
    assert counted(few) == 1


def test_who_fell_silent_makes_room_at_once(few: Conversation) -> None:
    late = HEARTBEAT_EXPIRY + 1
    reads(few, 2, 5.0)
    assert reads(few, 9, late)["status"] == "success"  # no tick was needed
    assert counted(few) == 3  # of (1, c), (1, d) only one had to go
    few.tick(late)
    assert counted(few) == 2


def test_refreshed_channels_keep_their_readers(few: Conversation) -> None:
    few.register(channel_name="c", metadata={"a": 1})
    assert counted(few) == 3
    few.say(BOB, "CONSUMER_DEREG_REQ", channel_name="c", consumer_pid=2)
    assert counted(few) == 2
    assert reads(few, 9)["status"] == "success"


def test_a_key_has_a_quota_of_bytes() -> None:
    talk = Conversation(max_nbytes_per_key=3000)
    assert talk.register(metadata={"text": "x" * 1000})["status"] == "success"
    refused = talk.register(channel_name="d", metadata={"text": "x" * 1500})
    assert refused["error_code"] == "QUOTA_EXCEEDED"
    assert "3000 bytes" in refused["message"]
    assert "shorten their metadata" in refused["message"]
    grown = talk.register(metadata={"text": "x" * 3000})
    assert grown["error_code"] == "QUOTA_EXCEEDED"  # nor does a refresh grow beyond it
    assert talk.say(BOB, "DISC_REQ", channel_name="c")["metadata"] == {"text": "x" * 1000}
    assert talk.register(metadata={"text": "x" * 2000})["status"] == "success"
    assert talk.register(metadata={"text": "x" * 10})["status"] == "success"
    assert talk.register(channel_name="d", metadata={"text": "x" * 1500})["status"] == "success"
    assert talk.register(BOB, channel_name="e", metadata={"text": "x" * 1500})["status"] == "success"


@pytest.mark.parametrize(
    ("kind", "fields"), [("LIST_REQ", {}), ("DISC_REQ", {"channel_name": "c"}), ("SCHEMA_REQ", {"channel_name": "c"})]
)
def test_who_does_not_read_gets_no_more_long_answers(kind: str, fields: dict[str, Any]) -> None:
    slow = {BOB.routing_id}
    talk = Conversation(unread=lambda peer: "9 bytes wait for you" if peer.routing_id in slow else "")
    talk.register()
    refused = talk.say(BOB, kind, **fields, correlation_id="7")
    assert (refused["error_code"], refused["message"]) == ("QUOTA_EXCEEDED", "9 bytes wait for you")
    assert refused["correlation_id"] == "7"
    assert talk.say(ALICE, kind, **fields)["status"] == "success"
    # What keeps a channel alive has short answers, and goes on.
    assert talk.register(BOB, channel_name="mine", producer_pid=5)["status"] == "success"
    assert talk.say(BOB, "HEARTBEAT_REQ", producer_pid=5, channels=["mine"])["unknown"] == []
    slow.clear()
    assert talk.say(BOB, kind, **fields)["status"] == "success"
