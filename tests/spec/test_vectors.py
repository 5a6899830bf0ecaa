"""The vectors in tests/vectors are what labhub says and does, byte for byte."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.protocol import codec
from labhub.protocol.access import Access, Grants
from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.messages import REPLY_TO, TYPE_NAME, ErrorCode, EventKind
from labhub.schema import Schema

from . import segment_vector
from .schema_hash import canonical, layout_hash
from .segment_file import LINES
from .segment_reader import SegmentReader
from .segment_writer import SegmentWriter

VECTORS = Path(__file__).parent.parent / "vectors"
QUOTA = 3


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


MESSAGES, REFUSED, CONVERSATIONS, SCHEMAS = map(load, ("messages", "refused", "conversations", "schemas"))
SEGMENT = load("segment")
MARKS = pytest.mark.parametrize("mark", [[], [b"C"]], ids=["plain", "marked"])


def encoded(pair: list[str]) -> list[bytes]:
    return [part.encode() for part in pair]


# ---------------------------------------------------------------------------------------------------------- messages


@MARKS
@pytest.mark.parametrize("vector", MESSAGES, ids=[f"{v['type']}-{k}" for k, v in enumerate(MESSAGES)])
def test_messages_are_read_and_written_byte_for_byte(vector: dict[str, str], mark: list[bytes]) -> None:
    given, whole = ([*mark, vector["type"].encode(), vector[key].encode()] for key in ("given", "whole"))
    envelope = codec.split(given)
    assert codec.encode(codec.decode(envelope), marked=envelope.marked) == whole


def test_there_is_a_vector_for_every_message_code_and_event() -> None:
    said = defaultdict(list)
    for vector in MESSAGES:
        said[vector["type"]].append(json.loads(vector["whole"]))
    assert set(said) == set(TYPE_NAME.values())
    assert {e["error_code"] for e in said["ERROR"]} == {c.value for c in ErrorCode}
    assert {e["event"] for e in said["EVENT"]} == {k.value for k in EventKind}
    answered = [
        json.loads(m[1]) for c in CONVERSATIONS for s in c["steps"] for r in s.get("receive", {}).values() for m in r
    ]
    assert {a["error_code"] for a in answered if "error_code" in a} == {c.value for c in ErrorCode}
    asked = {s["send"][0] for c in CONVERSATIONS for s in c["steps"] if "send" in s}
    assert {TYPE_NAME[kind] for kind in REPLY_TO} <= asked


@pytest.mark.parametrize("vector", REFUSED, ids=[v["why"] for v in REFUSED])
def test_what_is_no_request_is_refused(vector: dict[str, Any]) -> None:
    frames = [frame.encode("latin-1") for frame in vector["frames"]]
    (out,) = BrokerState(probe=lambda _: "unknown").receive(Peer(b"A"), frames, now=0.0)
    assert out.frames[-2] == b"ERROR"
    assert json.loads(out.frames[-1])["error_code"] == "INVALID_REQUEST"


# ----------------------------------------------------------------------------------------------------- conversations


def comparable(frames: list[bytes]) -> list[bytes]:
    """The frames, without texts that are for people and fixed nowhere."""
    *front, body = frames
    if front[-1] not in (b"ERROR", b"EVENT"):
        return frames
    document = json.loads(body)
    text = document.pop("message" if front[-1] == b"ERROR" else "detail")
    assert isinstance(text, str)
    if document.get("event") == "checksum_error":
        document["names the seq"] = "99" in text
    return [*front, json.dumps(document).encode()]


@MARKS
@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=[c["name"] for c in CONVERSATIONS])
def test_the_broker_holds_its_side_of_a_conversation(conversation: dict[str, Any], mark: list[bytes]) -> None:
    segments: dict[str, Any] = {}
    access = Access(name_of=lambda key: key.removeprefix("key of "))
    access.rules = msgspec.convert(conversation.get("access", {}), dict[str, Grants])
    quota = QUOTA if "(here 3)" in conversation["name"] else 100
    state = BrokerState(
        probe=lambda r: segments.get(r.shm_name, "unknown"),
        allowed=lambda key: key != "key of stranger",
        access=access,
        max_channels_per_key=quota,
        max_watches_per_key=quota,
    )
    for number, step in enumerate(conversation["steps"]):
        if "segment" in step:
            segments[step["segment"]] = step["is"]
            continue
        if "tick" in step:
            sent = state.tick(float(step["now"]))
        else:
            peer = Peer(step["from"].encode(), f"key of {step['from']}")
            sent = state.receive(peer, [*mark, *encoded(step["send"])], float(step["now"]))
        received: dict[str, list[list[bytes]]] = defaultdict(list)
        for out in sent:
            received[out.routing_id.decode()].append(comparable(out.frames))
        expected = {who: [comparable([*mark, *encoded(m)]) for m in said] for who, said in step["receive"].items()}
        assert received == {who: said for who, said in expected.items() if said}, f"step {number}"


# -------------------------------------------------------------------------------------------------- schemas, segment


@pytest.mark.parametrize("vector", SCHEMAS, ids=[v["hashed"][:40] for v in SCHEMAS])
def test_schemas_are_written_and_hashed_so(vector: dict[str, Any]) -> None:
    schema = Schema.from_json(vector["schema"])
    assert schema.to_json() == vector["schema"] == canonical(json.loads(vector["schema"]))
    assert schema.layout_hash.hex() == vector["layout_hash"] == layout_hash(vector["schema"]).hex()
    assert Schema.from_json(vector["hashed"]).layout_hash.hex() == vector["layout_hash"]
    assert schema.slot_nbytes == vector["slot_nbytes"]


def test_the_segment_vector_is_what_labhub_writes() -> None:
    assert segment_vector.describe() == SEGMENT, "run python -m tests.spec.segment_vector and look at the difference"


def rebuilt() -> str:
    directory = Path(segment_directory())
    directory.mkdir(mode=0o700)
    segment_vector.rebuild(SEGMENT, directory / "x")
    return str(directory)


def test_the_independent_reader_finds_in_it_what_it_should() -> None:
    directory, expect = rebuilt(), SEGMENT["expect"]
    with SegmentReader(directory, "x", start=0) as reader:
        m = reader.map
        assert not reader.producer_alive
        assert (m.capacity, m.slot_nbytes) == (expect["capacity"], expect["slot_nbytes"])
        facts = {"head": reader.head, "first_seq": m.get("CommitLine", "first_seq"), "epoch": reader.epoch}
        assert facts.items() <= expect.items()
        assert reader._oldest(reader.head) == expect["oldest"]
        assert m.slot(expect["being_written"], "seq") == 2 * expect["being_written"] + 1
        lines = [(k, m.get("CursorLine", "cursor", k), m.get("CursorLine", "state", k)) for k in range(LINES)]
        assert [
            {"line": k, "cursor": cursor, "generation": state >> 2, "state": state & 3}
            for k, cursor, state in lines
            if state and k != reader.line
        ] == expect["lossless_readers"]
        slots = reader.read()
        assert [
            {
                "seq": s.seq,
                "timestamp_ns": s.timestamp_ns,
                "flags": s.flags,
                "checksum": s.checksum.hex() if s.flags else "",
                "payload": s.payload[: s.nbytes].hex(),
            }
            for s in slots
        ] == expect["slots"]
        assert reader.lost == expect["slots"][0]["seq"] - expect["first_seq"]
    os.unlink(os.path.join(directory, "x"))


def test_labhub_reads_it_and_a_stranger_takes_it_over() -> None:
    directory, expect = rebuilt(), SEGMENT["expect"]
    with open_consumer("x", directory=directory, start=0) as consumer:
        batch = next(consumer.batches(timeout=5))
        assert batch.seq.tolist() == [s["seq"] for s in expect["slots"]]
        assert batch.lost == expect["slots"][0]["seq"] - expect["first_seq"]
        identity = {"schema_hash": bytes(range(32)), "checksum": 1, "secret": 0xDEADBEEF12345678}
        shape = {"capacity": expect["capacity"], "slot_nbytes": expect["slot_nbytes"]}
        with SegmentWriter(directory, "x", **shape, **identity) as successor:  # type: ignore[arg-type]
            assert successor.took_over
            assert successor.epoch == expect["epoch"] + 1
            assert successor.write(b"next") == expect["being_written"]
            assert next(consumer.batches(timeout=5)).seq.tolist() == [expect["being_written"]]
