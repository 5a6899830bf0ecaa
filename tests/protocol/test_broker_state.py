"""Conversations with the broker without a socket, a thread or a clock."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.messages import (
    HEARTBEAT_EXPIRY,
    MAX_PAGE_NBYTES,
    REPLY_TO,
    TAKEOVER_GRACE,
    TYPE_NAME,
    Error,
    Event,
)
from labhub.protocol.registry import Registration
from tests.protocol.conversation import ALICE, BOB, OTHER, Conversation

MESSAGE_OF = {name.encode(): kind for kind, name in TYPE_NAME.items()}


@pytest.mark.parametrize("verdict", ["alive", "unknown"])
@pytest.mark.parametrize(
    ("peer", "fields", "outcome"),
    [
        (ALICE, {}, "success"),
        (ALICE, {"schema_hash": OTHER}, "SCHEMA_MISMATCH"),
        (BOB, {"schema_hash": OTHER}, "SCHEMA_MISMATCH"),
        (BOB, {}, "CHANNEL_BUSY"),
        (ALICE, {"producer_pid": 2}, "CHANNEL_BUSY"),
        (ALICE, {"shm_name": "d"}, "CHANNEL_BUSY"),
    ],
)
def test_who_may_register_against_a_living_owner(verdict: str, peer: Peer, fields: dict, outcome: str) -> None:
    talk = Conversation()
    talk.register()
    talk.verdict = verdict
    reply = talk.register(peer, **fields)
    assert reply.get("error_code", reply["status"]) == outcome
    if outcome == "CHANNEL_BUSY":
        assert "process 1" in reply["message"]
    assert talk.state.registry.find_channel("c").producer_pid == 1


def test_a_dead_owner_is_replaced_whatever_the_schema() -> None:
    talk = Conversation()
    talk.register()
    talk.verdict = "dead"
    assert talk.register(BOB, schema_hash=OTHER, producer_pid=2)["status"] == "success"


def test_a_takeover_replaces_the_registration_of_the_same_instance() -> None:
    talk = Conversation()
    talk.verdict = "alive"
    talk.register(metadata={"instance_id": "i", "epoch": 1})
    assert talk.register(ALICE, producer_pid=2, metadata={"instance_id": "j", "epoch": 2})["status"] == "error"
    assert talk.register(ALICE, producer_pid=2, metadata={"instance_id": "i", "epoch": 2})["status"] == "success"
    # Everybody can learn the instance id by a DISC: a stranger who claims a higher epoch needs the proof of a death.
    assert talk.register(BOB, producer_pid=3, metadata={"instance_id": "i", "epoch": 3})["status"] == "error"
    talk.verdict = "dead"
    assert talk.register(BOB, producer_pid=3, metadata={"instance_id": "i", "epoch": 3})["status"] == "success"


@pytest.mark.parametrize(("peer", "pid"), [(BOB, 1), (ALICE, 2)])
def test_nobody_else_deregisters(peer: Peer, pid: int) -> None:
    talk = Conversation()
    talk.register()
    assert talk.say(peer, "DEREG_REQ", channel_name="c", producer_pid=pid)["error_code"] == "NOT_REGISTERED"
    assert talk.found()
    assert talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)["status"] == "success"
    assert not talk.found()


def test_a_client_that_sent_heartbeats_expires_by_them() -> None:
    talk = Conversation()
    talk.register()
    assert talk.say(ALICE, "HEARTBEAT_REQ", 2.0, producer_pid=1, channels=["c", "x"])["unknown"] == ["x"]
    talk.state.tick(2.0 + HEARTBEAT_EXPIRY)
    assert talk.found()
    died = 2.0 + HEARTBEAT_EXPIRY + 0.1
    talk.state.tick(died)
    talk.state.tick(died + TAKEOVER_GRACE - 0.1)
    assert talk.found()  # a successor may still take over
    talk.state.tick(died + TAKEOVER_GRACE)
    assert not talk.found()
    assert talk.buried == ["c"]


def test_without_heartbeats_or_a_segment_a_registration_is_kept() -> None:
    talk = Conversation()
    talk.register()
    talk.state.tick(1e6)
    assert talk.found()
    assert talk.say(BOB, "LIST_REQ")["channels"][0]["liveness"] == "unknown"


def test_a_producer_that_comes_back_to_life_is_not_removed() -> None:
    talk = Conversation()
    talk.register()
    for now, verdict in ((0.0, "dead"), (9.0, "alive"), (11.0, "dead"), (20.0, "dead")):
        talk.verdict = verdict
        talk.state.tick(now)
    assert talk.found()


def test_a_stopped_process_is_stalled_not_dead() -> None:
    talk = Conversation()
    talk.verdict = "alive"
    talk.register()
    talk.say(ALICE, "HEARTBEAT_REQ", 0.0, producer_pid=1, channels=["c"])
    assert talk.state.liveness(talk.state.registry.find_channel("c"), 100.0) == "stalled"


def test_stopping_removes_what_dead_producers_left() -> None:
    talk = Conversation()
    talk.register()
    talk.register(channel_name="d", shm_name="d")
    judge: Callable[[Registration], str] = lambda entry: "dead" if entry.channel_name == "d" else "alive"  # noqa: E731
    talk.state._probe = judge
    talk.state.close(0.0)
    assert talk.buried == ["d"]


def test_lists_come_in_pages() -> None:
    talk = Conversation()
    for k in range(25):
        talk.register(channel_name=f"pump.{k:02}", shm_name="s")
    talk.register(channel_name="other", shm_name="s")
    names, offset = [], 0
    while offset >= 0:
        page = talk.say(BOB, "LIST_REQ", pattern="pump.*", offset=offset, limit=10)
        assert page["total"] == 25
        names += [c["channel_name"] for c in page["channels"]]
        offset = page["next_offset"]
    assert names == [f"pump.{k:02}" for k in range(25)]


def test_a_key_has_a_quota() -> None:
    talk = Conversation(max_channels_per_key=1)
    talk.register()
    assert talk.register(channel_name="d")["error_code"] == "QUOTA_EXCEEDED"
    assert talk.register()["status"] == "success"  # refreshing is free
    talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    assert talk.register(channel_name="d")["status"] == "success"


def test_a_revoked_key_is_refused_at_the_next_request() -> None:
    allowed = {ALICE.key}
    talk = Conversation(allowed=allowed.__contains__)
    assert talk.register()["status"] == "success"
    allowed.clear()
    assert talk.register()["error_code"] == "UNAUTHORIZED"
    assert talk.state.receive(ALICE, [b"garbage"], 0.0) == []


def test_consumers_are_counted() -> None:
    talk = Conversation()
    talk.register()
    talk.say(BOB, "CONSUMER_REG_REQ", channel_name="c", consumer_pid=7)
    assert talk.say(BOB, "LIST_REQ")["channels"][0]["consumers"] == 1
    talk.say(BOB, "CONSUMER_DEREG_REQ", channel_name="c", consumer_pid=7)
    assert talk.say(BOB, "LIST_REQ")["channels"][0]["consumers"] == 0


def test_a_consumer_that_falls_silent_is_forgotten() -> None:
    talk = Conversation()
    talk.register()
    talk.say(BOB, "CONSUMER_REG_REQ", channel_name="c", consumer_pid=7)
    late = HEARTBEAT_EXPIRY + 1
    talk.say(BOB, "CONSUMER_REG_REQ", late, channel_name="c", consumer_pid=8)
    assert talk.say(BOB, "LIST_REQ", late)["channels"][0]["consumers"] == 1
    talk.tick(late)
    assert len(talk.state.registry.find_channel("c").consumers) == 1


def test_pages_of_big_metadata_end_early_and_lose_nothing() -> None:
    talk = Conversation()
    for k in range(60):
        talk.register(channel_name=f"c{k:02}", metadata={"note": "x" * 60_000})
    names, offset, pages = [], 0, 0
    while offset >= 0:
        page = talk.say(BOB, "LIST_REQ", offset=offset, limit=1000)
        assert len(json.dumps(page)) < MAX_PAGE_NBYTES + 62_000
        names += [c["channel_name"] for c in page["channels"]]
        offset, pages = page["next_offset"], pages + 1
    assert names == [f"c{k:02}" for k in range(60)]
    assert pages == 4


def test_the_version_of_a_list_rises_with_what_changes_it() -> None:
    talk = Conversation()

    def version() -> int:
        return talk.say(BOB, "LIST_REQ")["version"]

    before = version()
    talk.register()
    assert version() == before + 1
    talk.register()
    talk.say(BOB, "CHECKSUM_ERROR_REQ", channel_name="c", consumer_pid=7, seq=0)
    assert version() == before + 1
    talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    assert version() == before + 2


def test_the_schema_of_a_channel() -> None:
    talk = Conversation()
    assert talk.say(BOB, "SCHEMA_REQ", channel_name="c")["error_code"] == "CHANNEL_NOT_FOUND"
    talk.register(metadata={"schema": "{}"}, schema_version=3)
    reply = talk.say(BOB, "SCHEMA_REQ", channel_name="c")
    assert (reply["schema"], reply["schema_hash"], reply["schema_version"]) == ("{}", "00" * 32, 3)
    talk.register(channel_name="d", metadata={"schema": 7})
    assert talk.say(BOB, "SCHEMA_REQ", channel_name="d")["schema"] is None


def test_only_the_owner_reports_metrics() -> None:
    talk = Conversation()
    talk.register()
    assert talk.say(BOB, "METRICS_REQ", channel_name="c") | {"age_s": -1.0, "metrics": {}} == talk.say(
        BOB, "METRICS_REQ", channel_name="c"
    )
    for peer, pid in ((BOB, 1), (ALICE, 2)):
        reply = talk.say(peer, "METRICS_REPORT_REQ", channel_name="c", producer_pid=pid, metrics={"a": 1})
        assert reply["error_code"] == "NOT_REGISTERED"
    for number in (1, 2.5):
        talk.say(ALICE, "METRICS_REPORT_REQ", 5.0, channel_name="c", producer_pid=1, metrics={"a": number})
    talk.register(now=6.0)  # refreshing does not forget them
    reply = talk.say(BOB, "METRICS_REQ", 8.0, channel_name="c")
    assert (reply["metrics"], reply["age_s"]) == ({"a": 2.5}, 3.0)
    assert talk.say(BOB, "METRICS_REQ", channel_name="nobody")["error_code"] == "CHANNEL_NOT_FOUND"


def test_the_brokers_own_metrics() -> None:
    talk = Conversation(started_at=10.0)
    talk.register()
    talk.register()
    talk.register(BOB)
    talk.say(BOB, "DISC_REQ", channel_name="nobody")
    talk.say(BOB, "WATCH_REQ", watch_id="w")
    talk.state.receive(BOB, [b"garbage"], 0.0)
    talk.say(ALICE, "DEREG_REQ", channel_name="c", producer_pid=1)
    reply = talk.say(BOB, "METRICS_REQ", 12.5)
    assert reply["age_s"] == 0.0
    assert reply["metrics"] == {
        "channels": 0,
        "watches": 1,
        "registrations": 1,
        "events": 1,
        "checksum_errors": 0,
        "ignored": 0,
        "refused.CHANNEL_BUSY": 1,
        "refused.CHANNEL_NOT_FOUND": 1,
        "refused.INVALID_REQUEST": 1,
        "uptime_s": 2.5,
    }
    assert "uptime_s" not in Conversation().say(BOB, "METRICS_REQ")["metrics"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("METRICS_REPORT_REQ", {"channel_name": "c", "producer_pid": 1, "metrics": {"a": "1"}}),
        ("METRICS_REPORT_REQ", {"channel_name": "c", "producer_pid": 1, "metrics": {str(k): k for k in range(101)}}),
        ("METRICS_REPORT_REQ", {"channel_name": "c", "producer_pid": 1, "metrics": {"a" * 257: 1}}),
        ("METRICS_REQ", {"channel_name": 7}),
        ("SCHEMA_REQ", {}),
        ("CHECKSUM_ERROR_REQ", {"channel_name": "c", "consumer_pid": 1, "seq": -1}),
        ("CHECKSUM_ERROR_REQ", {"channel_name": "c", "consumer_pid": 1, "seq": 2**63}),
        ("WATCH_REQ", {"watch_id": "w", "pattern": ""}),
        ("WATCH_REQ", {"watch_id": "w" * 65}),
        ("WATCH_REQ", {"pattern": "*"}),
        ("UNWATCH_REQ", {}),
        ("EVENT", {"watch_id": "w", "serial": 0, "event": "gone", "channel_name": "c"}),
        ("WATCH_ACK", {}),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(kind: str, fields: dict) -> None:
    talk = Conversation()
    talk.register()
    assert talk.say(ALICE, kind, **fields)["error_code"] == "INVALID_REQUEST"
    assert len(talk.state.watches) == 0
    assert talk.told == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 60_000,
        b'{"a":' * 9_000,
        b'{"channel_name":NaN}',
        b'{"channel_name":"\xff"}',
        b'{"channel_name":"\\ud800"}',
        b'{"channel_name":17}',
        b'{"channel_name":"../etc"}',
        b'{"channel_name":"' + b"a" * 300 + b'"}',
        b'{"channel_name":"a\\u0000"}',
        b'{"channel_name":"a\\n"}',
        b'{"channel_name":' + b"9" * 5000 + b"}",
        b"null",
    ],
    ids=range(13),
)
def test_json_traps_are_invalid_requests(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    state = BrokerState(probe=lambda _: "unknown")
    (out,) = state.receive(ALICE, [b"DISC_REQ", body], 0.0)
    assert out.frames[0] == b"ERROR"
    assert json.loads(out.frames[1])["error_code"] == "INVALID_REQUEST"
    assert "Traceback" not in caplog.text


def test_of_duplicate_keys_the_last_counts() -> None:
    talk = Conversation()
    talk.register()
    (out,) = talk.state.receive(BOB, [b"DISC_REQ", b'{"channel_name":"x","channel_name":"c"}'], 0.0)
    assert out.frames[0] == b"DISC_ACK"


FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.sampled_from(
            [
                b"C",
                b"REG_REQ",
                b"DISC_REQ",
                b"DEREG_REQ",
                b"LIST_REQ",
                b"HEARTBEAT_REQ",
                b"WATCH_REQ",
                b"EVENT",
                b"ERROR",
                b"{}",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=6,
        ).map(lambda value: json.dumps(value).encode()),
    ),
    max_size=4,
)


def test_metadata_that_no_reply_could_carry_are_refused() -> None:
    state = BrokerState(probe=lambda _: "unknown")
    for depth, answer in [(31, b"REG_ACK"), (32, b"ERROR"), (991, b"ERROR"), (995, b"ERROR"), (30_000, b"ERROR")]:
        nested = "[" * depth + "]" * depth
        body = (
            f'{{"channel_name":"a","shm_name":"a","schema_hash":"{"0" * 64}","schema_version":1,"producer_pid":1,'
            f'"metadata":{{"a":{nested}}}}}'
        )
        (out,) = state.receive(Peer(b"x"), [b"REG_REQ", body.encode()], 0.0)
        assert out.frames[0] == answer, depth
        (out,) = state.receive(Peer(b"x"), [b"LIST_REQ", b"{}"], 0.0)
        assert out.frames[0] == b"LIST_ACK", depth


@given(FRAMES)
def test_garbage_is_answered_with_an_error(frames: list[bytes]) -> None:
    state = BrokerState(probe=lambda _: "unknown")
    for out in state.receive(ALICE, frames, 0.0):
        assert out.frames[-2] in (b"ERROR", b"LIST_ACK")
    assert len(state.registry) == 0


def test_a_hundred_thousand_broken_messages_break_nothing() -> None:
    rng = random.Random(38)
    state = BrokerState(probe=lambda _: "unknown", allowed=lambda key: key != "stranger")
    peers = [Peer(b"a", "key"), Peer(b"b", "stranger"), Peer(b"c", "other key")]
    body = json.dumps(
        {"channel_name": "c", "shm_name": "c", "schema_hash": "00" * 32, "schema_version": 1, "producer_pid": 1}
        | {"watch_id": "w", "pattern": "*", "consumer_pid": 1, "seq": 1, "metrics": {"a": 1}, "channels": ["c"]}
    ).encode()
    kinds = [name.encode() for name in TYPE_NAME.values()]
    outcomes: Counter[bytes] = Counter()
    for k in range(100_000):
        broken = bytearray(body)
        for _ in range(rng.randrange(3)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        frames = [rng.choice(kinds), bytes(broken), b"C"][: rng.choice((2, 2, 2, 2, 1, 3))]
        for out in state.receive(rng.choice(peers), frames, k / 1000):
            outcomes[out.frames[-2]] += 1
    # All of it happened: answers of every kind, events, refusals, and what could not even be answered.
    assert {REPLY_TO[kind] for kind in REPLY_TO} == {MESSAGE_OF[name] for name in outcomes} - {Error, Event}
    assert outcomes[b"ERROR"] > 10_000
    assert outcomes[b"EVENT"] > 100
    assert state.ignored > 1000
    assert len(state.watches) <= 2 * 256
    (out,) = state.receive(peers[0], [b"LIST_REQ", b"{}"], 1000.0)
    assert out.frames[0] == b"LIST_ACK"
