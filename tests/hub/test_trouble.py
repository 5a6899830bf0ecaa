"""Silence, forks and wrong arguments: every call ends, in good order and with a typed error."""

from __future__ import annotations

import os
import signal
import time

import pytest

from labhub import Messenger, ProducerInfo
from labhub.datablock.config import DataBlockConfig, DataBlockPolicy
from labhub.datablock.reference import create_datablock_producer
from labhub.errors import BrokerUnreachable, ChannelNotFound, InvalidArgument, LabHubError
from labhub.hub import connect, named_broker, start_broker, stop_broker
from labhub.hub.lease import WITHDRAW_TIMEOUT

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def stopped_broker():
    """A broker process that can be stopped (SIGSTOP) and continued."""
    found = start_broker(endpoint=ANY_PORT)
    yield found
    os.kill(found.pid, signal.SIGCONT)
    stop_broker()


def test_a_silent_broker_refuses_in_time(stopped_broker, private_dirs):
    with connect(timeout=0.3) as hub:
        living = hub.producer("living", dtype="f8")
        os.kill(stopped_broker.pid, signal.SIGSTOP)
        with pytest.raises(BrokerUnreachable, match=r"did not confirm the channel 'x' within 0.3 s"):
            hub.producer("x", dtype="f8")
        assert [path.name for path in (private_dirs / "shm").rglob("*") if path.is_file()] == ["living"]
        with pytest.raises(BrokerUnreachable, match="did not answer"):
            hub.channels()
        assert living.write(1.0) == 0
        with pytest.raises(BrokerUnreachable, match="does not answer at"):
            connect("other", endpoint=stopped_broker.endpoint, public_key=stopped_broker.public_key, timeout=0.3)
        os.kill(stopped_broker.pid, signal.SIGCONT)


def test_a_hub_with_many_ends_waits_for_a_silent_broker_only_once(stopped_broker):
    hub = connect()
    ends = [end for k in range(5) for end in (hub.producer(f"x{k}", dtype="f8"), hub.consumer(f"x{k}"))]
    os.kill(stopped_broker.pid, signal.SIGSTOP)
    began = time.monotonic()
    hub.close()
    assert time.monotonic() - began < 3 * WITHDRAW_TIMEOUT
    assert all(end.closed for end in ends)


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: connect("z", timeout=-1),
        lambda hub: connect("z", timeout="soon"),
        lambda hub: connect("z", start=True, endpoint="tcp://127.0.0.1:1", public_key="x" * 40),
        lambda hub: connect("z", endpoint="nonsense", public_key="x" * 40),
        lambda hub: connect("z", endpoint="tcp://127.0.0.1:1", public_key="short"),
        lambda hub: hub.wait_for("x", timeout=-1),
        lambda hub: hub.consumer("x", timeout="soon"),
        lambda hub: hub.consumer("x", mode="fast"),
        lambda hub: hub.consumer("x", start="middle"),
        lambda hub: hub.consumer("x", start=-1),
        lambda hub: hub.producer("y", dtype="O"),
        lambda hub: hub.producer("y", dtype="nonsense"),
        lambda hub: hub.producer("y", dtype="f8", capacity=0),
        lambda hub: hub.producer("y", dtype="f8", capacity=2.5),
        lambda hub: hub.producer("y", dtype="f8", lossless="maybe"),
        lambda hub: hub.producer("y", dtype="f8", timeout=-1),
        lambda hub: hub.producer("y", dtype="f8", checksum="sometimes"),
        lambda hub: hub.producer("y", dtype="f8", units={"other": "V"}),
        lambda hub: hub.producer("y", dtype="f8", shape=(4,), sample_rate=10),
        lambda hub: hub.channels(7),
        lambda hub: hub["x"].snapshot(last=0),
        lambda hub: hub["x"].snapshot(seconds=-1),
        lambda hub: next(hub.consumer("x").batches(max_slots=0)),
        lambda hub: next(hub.consumer("x").batches(min_slots=3, max_slots=2)),
    ],
)
def test_wrong_arguments_are_refused_by_name(hub, call, private_dirs):
    with hub.producer("x", dtype="f8") as producer:
        producer.write(1.0)
        with pytest.raises(InvalidArgument):
            call(hub)
        assert [channel.name for channel in hub.channels()] == ["x"]


def test_a_producer_of_the_reference_level_is_read_as_bytes(hub, broker):
    with (
        Messenger() as messenger,
        create_datablock_producer(
            "raw", DataBlockPolicy.RING_BUFFER, DataBlockConfig(ring_buffer_capacity=4, logical_unit_size=16)
        ) as block,
    ):
        messenger.connect(broker.endpoint, broker.public_key)
        info = ProducerInfo(shm_name="raw", producer_pid=os.getpid(), schema_hash=bytes(32), schema_version=1)
        messenger.register_producer("raw", info).result(5)
        assert repr(hub.find("raw")) == "ChannelInfo('raw', undeclared, alive)"
        with hub.consumer("raw") as consumer:
            handle = block.acquire_write_slot(1000)
            handle.write(b"hello")
            handle.commit(5)
            block.release_write_slot(handle)
            batch = next(consumer.batches(timeout=5))
            assert batch.data.tobytes() == b"hello".ljust(16, b"\0")
            assert batch.nbytes.tolist() == [5]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"shm_dir": "/dev/shm/away", "boot_id": "another boot"}, "on the machine"),
        ({"instance_id": "zz"}, "broken instance id"),
        ({"schema": "{"}, "its segment is gone"),
        ({"schema": 7, "ring_buffer_capacity": "many"}, "its segment is gone"),
    ],
)
def test_strange_registrations_are_told_apart(hub, broker, metadata, words):
    with Messenger() as messenger:
        messenger.connect(broker.endpoint, broker.public_key)
        info = ProducerInfo("odd", os.getpid(), bytes(32), 1, metadata)
        messenger.register_producer("odd", info).result(5)
        assert hub.find("odd").schema is None
        with pytest.raises(LabHubError, match=words):
            hub.consumer("odd", timeout=0.2)


def test_a_segment_that_was_unlinked_is_a_channel_not_found(hub, private_dirs):
    with hub.producer("x", dtype="f8") as producer, hub.consumer("x") as consumer:
        (private_dirs / "shm" / "default" / "x").unlink()
        with pytest.raises(ChannelNotFound, match="its segment is gone"):
            hub.consumer("x", timeout=0.2)
        producer.write(1.0)
        assert next(consumer.batches(timeout=5)).data.tolist() == [1.0]


def test_a_broker_with_another_key_is_found_again(private_dirs, wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        key = service.start().public_key
        hub = connect()
        producer = hub.producer("x", dtype="f8")
    (private_dirs / "data" / "server.key").unlink()
    with named_broker(endpoint=ANY_PORT) as service:
        assert service.start().public_key != key
        wait_until(lambda: hub.status == "connected")
        assert hub.wait_for("x", timeout=10).producer_pid == os.getpid()
        producer.close()
        hub.close()
