"""A client written from the document alone speaks with a real broker, and meets real labhub on a channel."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq

import labhub
from labhub import BrokerConfig, BrokerService
from labhub.datablock.location import segment_directory
from labhub.hub import named_broker

from .broker_client import BrokerClient, Refused, find_broker, place_of, read_key
from .real_labhub import WORDS, is_whole, slots
from .schema_hash import canonical, layout_hash
from .segment_reader import SegmentReader
from .segment_writer import SegmentWriter
from .test_documents import PROTOCOL, column, sections, tables

ANY_PORT = "tcp://127.0.0.1:0"
ZEROS = "0" * 64
PATIENCE = 10.0
REGISTRATION = {"channel_name": "x", "shm_name": "x", "schema_hash": ZEROS, "schema_version": 1, "producer_pid": 4711}


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    """A broker that is found by its connection file."""
    with named_broker("default", ANY_PORT) as service:
        service.start()
        yield service


@pytest.fixture(params=[False, True], ids=["plain", "marked"])
def client(broker: BrokerService, request: pytest.FixtureRequest) -> Iterator[BrokerClient]:
    found = find_broker(os.environ["LABHUB_RUNTIME_DIR"])
    key = read_key(os.environ["LABHUB_DATA_DIR"])
    with BrokerClient(found["endpoint"], found["public_key"], key, mark=request.param) as made:
        yield made


def refusal(client: BrokerClient, type_: str, **fields: object) -> str:
    with pytest.raises(Refused) as caught:
        client.ask(type_, **fields)
    return caught.value.code


def answered(client: BrokerClient) -> bool:
    """Ask, and wait a moment only: what was sent while the connection was cut is lost."""
    client.send(b"LIST_REQ", b"{}")
    try:
        return client.receive(seconds=0.5)[0] == "LIST_ACK"
    except TimeoutError:
        return False


def test_a_channel_from_its_registration_to_its_end(client: BrokerClient) -> None:
    assert refusal(client, "DISC_REQ", channel_name="x") == "CHANNEL_NOT_FOUND"
    assert client.ask("REG_REQ", **REGISTRATION, metadata={"colour": "blue"})["channel_id"] == "x"
    found = client.ask("DISC_REQ", channel_name="x")
    assert (found["shm_name"], found["schema_hash"], found["schema_version"]) == ("x", ZEROS, 1)
    assert found["metadata"] == {"colour": "blue"}
    assert client.ask("HEARTBEAT_REQ", producer_pid=4711, channels=["x", "y"])["unknown"] == ["y"]
    assert client.ask("HEARTBEAT_REQ", producer_pid=1, channels=["x"])["unknown"] == ["x"]
    client.ask("CONSUMER_REG_REQ", channel_name="x", consumer_pid=1)
    page = client.ask("LIST_REQ", pattern="x*")
    assert (page["total"], page["next_offset"]) == (1, -1)
    (entry,) = page["channels"]
    assert (entry["channel_name"], entry["liveness"], entry["consumers"]) == ("x", "alive", 1)
    client.ask("CONSUMER_DEREG_REQ", channel_name="x", consumer_pid=1)
    assert client.ask("LIST_REQ")["channels"][0]["consumers"] == 0
    assert refusal(client, "DEREG_REQ", channel_name="x", producer_pid=1) == "NOT_REGISTERED"
    client.ask("DEREG_REQ", channel_name="x", producer_pid=4711)
    assert refusal(client, "DISC_REQ", channel_name="x") == "CHANNEL_NOT_FOUND"


def test_lists_come_in_pages(client: BrokerClient) -> None:
    names = [f"c{k}" for k in range(7)]
    for name in reversed(names):
        client.ask("REG_REQ", **(REGISTRATION | {"channel_name": name}))
    found, offset = [], 0
    while offset >= 0:
        page = client.ask("LIST_REQ", offset=offset, limit=3)
        assert page["total"] == 7
        found += [entry["channel_name"] for entry in page["channels"]]
        offset = page["next_offset"]
    assert found == names


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schema_hash": "1" * 64}, "SCHEMA_MISMATCH"),
        ({"producer_pid": 1}, "CHANNEL_BUSY"),
        ({"shm_name": "y"}, "CHANNEL_BUSY"),
        ({"schema_hash": "1" * 63}, "INVALID_REQUEST"),
        ({"channel_name": "../x"}, "INVALID_REQUEST"),
        ({"channel_name": "x" * 129}, "INVALID_REQUEST"),
        ({"producer_pid": 1.0}, "INVALID_REQUEST"),
        ({"producer_pid": 2**63}, "INVALID_REQUEST"),
        ({"producer_hostname": "h" * 257}, "INVALID_REQUEST"),
        ({"metadata": None}, "INVALID_REQUEST"),
    ],
)
def test_refused_registrations_change_nothing(broker: BrokerService, change: dict[str, object], code: str) -> None:
    key = read_key(os.environ["LABHUB_DATA_DIR"])
    with BrokerClient(broker.endpoint, broker.public_key, key) as client:
        client.ask("REG_REQ", **REGISTRATION)
        before = client.ask("DISC_REQ", channel_name="x")
        assert refusal(client, "REG_REQ", **(REGISTRATION | change)) == code
        after = client.ask("DISC_REQ", channel_name="x")
        assert {**before, "correlation_id": ""} == {**after, "correlation_id": ""}


@pytest.mark.parametrize(
    "frames",
    [
        [b"NEWS", b"{}"],
        [b"REG_ACK", b'{"channel_id":"x"}'],
        [b"DISC_REQ", b'{"channel_name":"x"'],
        [b"DISC_REQ", b'{"channel_name":"x","z":NaN}'],
        [b"DISC_REQ", b'{"channel_name":"x","correlation_id":null}'],
        [b"DISC_REQ", b'{"channel_name":"\xff"}'],
        [b"DISC_REQ", b'{"channel_name":"x","z":' + b"[" * 30_000 + b"]" * 30_000 + b"}"],
        [b"\xff", b"{}"],
    ],
)
def test_what_is_no_request_is_refused(client: BrokerClient, frames: list[bytes]) -> None:
    client.send(*frames)
    type_, body = client.receive()
    assert (type_, body["status"], body["error_code"]) == ("ERROR", "error", "INVALID_REQUEST")


def test_unknown_fields_are_tolerated_and_the_last_of_two_keys_counts(client: BrokerClient) -> None:
    client.ask("REG_REQ", **REGISTRATION, colour="blue")
    client.send(b"DISC_REQ", b'{"channel_name":"y","size":[1,2],"channel_name":"x"}')
    assert client.receive()[0] == "DISC_ACK"


def test_a_frame_that_is_too_long_ends_the_connection(broker: BrokerService, wait_until: Callable[..., None]) -> None:
    key = read_key(os.environ["LABHUB_DATA_DIR"])
    with BrokerClient(broker.endpoint, broker.public_key, key) as client:
        client.ask("LIST_REQ")
        client.send(b"LIST_REQ", b" " * 65_536 + b"{}")
        with pytest.raises(TimeoutError):
            client.receive(seconds=0.3)
        wait_until(lambda: answered(client), what="an answer on the next connection")


def test_strangers_get_no_answer(broker: BrokerService) -> None:
    public, secret = (half.decode() for half in zmq.curve_keypair())
    with BrokerClient(broker.endpoint, broker.public_key, (public, secret)) as stranger:
        stranger.send(b"LIST_REQ", b"{}")
        with pytest.raises(TimeoutError):
            stranger.receive(seconds=0.5)


def test_a_key_that_is_taken_off_the_list_is_refused_on_its_next_request(broker: BrokerService) -> None:
    enrolled = os.path.join(os.environ["LABHUB_DATA_DIR"], "enrolled.keys")
    public, secret = (half.decode() for half in zmq.curve_keypair())
    with open(enrolled, "w") as file:
        file.write(f"# friends\n{public} Ada\n")
    with BrokerClient(broker.endpoint, broker.public_key, (public, secret)) as friend:
        friend.ask("LIST_REQ")
        os.unlink(enrolled)
        assert refusal(friend, "LIST_REQ") == "UNAUTHORIZED"


def test_a_key_has_a_quota() -> None:
    config = BrokerConfig(ANY_PORT, use_curve=False, max_channels_per_key=1)
    with BrokerService(config) as broker, BrokerClient(broker.endpoint) as client:
        client.ask("REG_REQ", **REGISTRATION)
        client.ask("REG_REQ", **REGISTRATION)
        assert refusal(client, "REG_REQ", **(REGISTRATION | {"channel_name": "y"})) == "QUOTA_EXCEEDED"


def test_labhub_reads_a_strangers_channel(client: BrokerClient) -> None:
    schema = canonical({"dtype": "<u8", "shape": [WORDS], "dims": ["word"], "units": {"value": "V"}})
    directory = segment_directory()
    with SegmentWriter(directory, "x", capacity=8, slot_nbytes=8 * WORDS, schema_hash=layout_hash(schema)) as producer:
        place = {"instance_id": producer.map.raw("Identity", "instance_id").hex(), "epoch": producer.epoch}
        metadata = {**place, **place_of(directory), "schema": schema}
        mine = {"schema_hash": layout_hash(schema).hex(), "producer_pid": os.getpid(), "metadata": metadata}
        client.ask("REG_REQ", **(REGISTRATION | mine))
        with labhub.connect() as hub, hub.consumer("x", mode="lossless") as consumer:
            assert [c.liveness for c in hub.channels()] == ["alive"]
            assert consumer.schema.units == {"value": "V"}
            for slot in slots(0, 5):
                producer.write(slot.tobytes())
            batch = next(consumer.batches(min_slots=5, timeout=PATIENCE))
            assert np.array_equal(batch.data, slots(0, 5))
        producer.close()
        assert client.ask("LIST_REQ")["channels"][0]["liveness"] == "dead"
        client.ask("DEREG_REQ", channel_name="x", producer_pid=os.getpid())


def test_a_stranger_reads_labhubs_channel(client: BrokerClient) -> None:
    with labhub.connect() as hub, hub.producer("x", dtype="u8", shape=(WORDS,), units="V", capacity=8) as producer:
        found = client.ask("DISC_REQ", channel_name="x")
        metadata = found["metadata"]
        assert place_of(metadata["shm_dir"]).items() <= metadata.items()
        documented = column(tables(sections(PROTOCOL)["5"])[0], "key")
        assert {*metadata, "origin"} == set(re.findall(r"\w+", " ".join(documented)))  # an origin has what was imported
        assert json.loads(metadata["schema"]) == {"dtype": "<u8", "shape": [WORDS], "units": {"value": "V"}}
        assert layout_hash(metadata["schema"]).hex() == found["schema_hash"]
        with SegmentReader(metadata["shm_dir"], found["shm_name"], lossless=True) as reader:
            assert reader.instance_id.hex() == metadata["instance_id"]
            assert reader.map.raw("Identity", "schema_hash").hex() == found["schema_hash"]
            assert reader.epoch == metadata["epoch"]
            producer.write_many(slots(0, 5))
            assert reader.wait(PATIENCE)
            found_slots = reader.read()
            assert [s.seq for s in found_slots] == [0, 1, 2, 3, 4]
            assert all(is_whole(s.payload, s.seq) for s in found_slots)
