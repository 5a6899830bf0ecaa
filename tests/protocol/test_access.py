"""Access rules: who may do what, what he is told when he may not, and what he sees of the rest."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import msgspec
import pytest

from labhub.protocol.access import Access, Grants, Rules
from labhub.protocol.broker_state import Peer
from labhub.protocol.messages import REPLY_TO, RIGHT_FOR, TYPE_NAME, HeartbeatReq, Right
from tests.protocol.conversation import ALICE, BOB, HASH, Conversation

OWNER = Peer(b"o", "key-of-owner")
NAMES = {ALICE.key: "alice", BOB.key: "bob.laptop"}


class Ruled(Conversation):
    """A broker with rules; the owner has registered ``pump.a`` and ``cam.b``."""

    def __init__(self, **rules: Grants) -> None:
        self.access = Access(OWNER.key, lambda key: NAMES.get(key, ""))
        self.access.rules = rules
        super().__init__(access=self.access)
        for name in ("pump.a", "cam.b"):
            assert self.register(OWNER, channel_name=name)["type"] == "REG_ACK"

    def denied(self, peer: Peer, kind: str, **fields: Any) -> dict[str, str]:
        """What a refusal says."""
        reply = self.say(peer, kind, **fields)
        assert reply.get("error_code") == "ACCESS_DENIED", reply
        return reply["details"] | {"message": reply["message"]}

    def listed(self, peer: Peer, pattern: str = "*") -> list[str]:
        reply = self.say(peer, "LIST_REQ", pattern=pattern)
        assert reply["total"] == len(reply["channels"])
        return [entry["channel_name"] for entry in reply["channels"]]

    def allow(self, rules: Rules) -> None:
        self.access.rules = rules
        self.state.rules_changed()


REQUESTS: dict[str, tuple[Right, dict[str, Any]]] = {
    "REG_REQ": (Right.PRODUCE, {"shm_name": "c", "schema_hash": HASH, "schema_version": 1, "producer_pid": 1}),
    "DEREG_REQ": (Right.PRODUCE, {"producer_pid": 1}),
    "METRICS_REPORT_REQ": (Right.PRODUCE, {"producer_pid": 1, "metrics": {}}),
    "DISC_REQ": (Right.CONSUME, {}),
    "SCHEMA_REQ": (Right.CONSUME, {}),
    "CONSUMER_REG_REQ": (Right.CONSUME, {"consumer_pid": 1}),
    "CHECKSUM_ERROR_REQ": (Right.CONSUME, {"consumer_pid": 1, "seq": 1}),
    "METRICS_REQ": (Right.ADMINISTER, {}),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_request_about_a_channel_needs_its_right_and_no_other(kind: str) -> None:
    right, fields = REQUESTS[kind]
    others = {name: ["*"] for name in Right if name is not right}
    talk = Ruled(alice=Grants(**others), **{"bob.laptop": Grants(**{right: ["pump.*"]})})
    facts = talk.denied(ALICE, kind, channel_name="pump.a", **fields)
    assert (facts["key"], facts["channel"], facts["right"]) == ("alice", "pump.a", right)
    assert all(word in facts["message"] for word in ("alice", "pump.a", right, *facts["grant"].splitlines()))
    assert talk.say(BOB, kind, channel_name="pump.a", **fields).get("error_code") != "ACCESS_DENIED"
    assert talk.denied(BOB, kind, channel_name="cam.b", **fields)["key"] == "bob.laptop"
    # Whether it is there is nobody's business who may not consume it.
    assert talk.denied(BOB, kind, channel_name="nowhere", **fields)["channel"] == "nowhere"


def test_every_request_is_either_ruled_or_known_to_need_no_right() -> None:
    free = {TYPE_NAME[kind] for kind in REPLY_TO.keys() - RIGHT_FOR.keys()}
    assert free == {"HEARTBEAT_REQ", "CONSUMER_DEREG_REQ", "UNWATCH_REQ"}
    assert {TYPE_NAME[k]: r for k, r in RIGHT_FOR.items() if TYPE_NAME[k] in REQUESTS} == {
        kind: right for kind, (right, _) in REQUESTS.items()
    }
    assert HeartbeatReq not in RIGHT_FOR


@pytest.mark.parametrize("peer", [ALICE, BOB], ids=lambda p: NAMES[p.key])
def test_the_lines_that_a_refusal_names_grant_it(peer: Peer) -> None:
    talk = Ruled(**{"alice": Grants(consume=["cam.*"]), "*": Grants()})
    facts = talk.denied(peer, "DISC_REQ", channel_name="pump.a")
    talk.allow({**talk.access.rules, **msgspec.convert(tomllib.loads(facts["grant"])["access"], dict[str, Grants])})
    assert talk.say(peer, "DISC_REQ", channel_name="pump.a")["type"] == "DISC_ACK"
    assert talk.listed(ALICE)[0] == "cam.b"  # which the first one had before


def test_a_key_without_a_name_is_named_by_itself() -> None:
    stranger = Peer(b"s", "]s)aCkYTg$sW#o72y+Un9*1kCRYBEiWG*.NzOdX?")
    talk = Ruled(**{"*": Grants()})
    facts = talk.denied(stranger, "DISC_REQ", channel_name="pump.a")
    assert facts["key"] == stranger.key
    talk.allow(msgspec.convert(tomllib.loads(facts["grant"])["access"], dict[str, Grants]))
    assert talk.listed(stranger) == ["pump.a"]


def test_a_list_shows_what_may_be_consumed_and_a_name_is_a_question_about_it() -> None:
    talk = Ruled(alice=Grants(produce=["*"], consume=["pump.*"]))
    assert talk.listed(ALICE) == ["pump.a"]
    assert talk.listed(ALICE, "cam*") == []
    assert talk.denied(ALICE, "LIST_REQ", pattern="cam.b")["right"] == "consume"
    assert talk.denied(ALICE, "WATCH_REQ", watch_id="w", pattern="cam.b")["right"] == "consume"
    assert talk.listed(OWNER) == ["cam.b", "pump.a"]


def test_no_rules_and_no_rule_for_a_key_refuse_nothing() -> None:
    assert Ruled().listed(ALICE) == ["cam.b", "pump.a"]
    talk = Ruled(alice=Grants())
    assert talk.listed(BOB) == ["cam.b", "pump.a"]
    assert talk.listed(ALICE) == []
    talk.allow({"*": Grants(consume=["cam.*"]), "alice": Grants(consume=["pump.*"])})
    assert (talk.listed(BOB), talk.listed(ALICE)) == (["cam.b"], ["pump.a"])


def test_a_table_without_a_name_is_nobodys() -> None:
    stranger = Peer(b"s", "key-of-nobody")
    assert Ruled(**{"": Grants()}).listed(stranger) == ["cam.b", "pump.a"]


def test_the_owner_is_not_ruled() -> None:
    talk = Ruled(**{"*": Grants(), OWNER.key: Grants()})
    assert talk.listed(OWNER) == ["cam.b", "pump.a"]
    assert talk.say(OWNER, "METRICS_REQ")["type"] == "METRICS_ACK"


@pytest.mark.parametrize("patterns", [[], ["pump.*"], ["?"], ["[*]"], ["**"]])
def test_the_brokers_own_numbers_need_the_whole_of_it(patterns: list[str]) -> None:
    talk = Ruled(alice=Grants(administer=patterns), **{"bob.laptop": Grants(administer=["*"])})
    assert talk.denied(ALICE, "METRICS_REQ")["channel"] == "*"
    assert talk.say(BOB, "METRICS_REQ")["type"] == "METRICS_ACK"


def test_whoever_may_no_longer_produce_is_told_so_when_he_registers_again() -> None:
    talk = Ruled()
    talk.register(ALICE, channel_name="x")
    assert talk.say(ALICE, "HEARTBEAT_REQ", producer_pid=1, channels=["x"])["unknown"] == []
    talk.allow({"alice": Grants(consume=["*"])})
    assert talk.say(ALICE, "HEARTBEAT_REQ", producer_pid=1, channels=["x"])["unknown"] == ["x"]
    assert talk.register(ALICE, channel_name="x")["error_code"] == "ACCESS_DENIED"
    assert talk.listed(ALICE) == ["cam.b", "pump.a", "x"]


def test_watchers_hear_of_what_they_may_consume_and_begin_anew_with_new_rules() -> None:
    talk = Ruled(alice=Grants(consume=["pump.*"]))
    watch = {"watch_id": "w", "pattern": "*"}
    assert talk.say(ALICE, "WATCH_REQ", **watch)["renewed"] is False
    for name in ("pump.b", "cam.c", "pump.d"):
        talk.register(OWNER, channel_name=name)
    assert [(told["channel_name"], told["serial"]) for _, told in talk.told] == [("pump.b", 0), ("pump.d", 1)]
    version = talk.say(ALICE, "LIST_REQ")["version"]
    talk.allow({"alice": Grants(consume=["cam.*"])})
    assert talk.say(ALICE, "LIST_REQ")["version"] > version  # pages of before do not fit those of now
    talk.register(OWNER, channel_name="pump.e")
    assert talk.say(ALICE, "WATCH_REQ", **watch) == {
        "type": "WATCH_ACK",
        "status": "success",
        "next_serial": 0,
        "renewed": False,
    }
    talk.register(OWNER, channel_name="pump.f")
    talk.register(OWNER, channel_name="cam.g")
    assert [told["channel_name"] for _, told in talk.told[2:]] == ["cam.g"]


def test_details_are_those_of_access_only() -> None:
    talk = Ruled()
    (out,) = talk.state.receive(ALICE, [b"DISC_REQ", b'{"channel_name":"nowhere"}'], 0.0)
    assert "details" not in json.loads(out.frames[1])
