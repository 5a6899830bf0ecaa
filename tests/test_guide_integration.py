"""The reference guide's six integration tests, by its names and methods, and its two complete programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from labhub import BrokerConfig, BrokerService, ChannelRegistry, Messenger, ProducerInfo, errors
from labhub.broker import Registration
from labhub.transport.curve import CLIENT_KEY, load_key

EXAMPLES = Path(__file__).parent.parent / "examples"
CHANNEL = "sensor.temperature"
ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT)) as service:
        yield service


@pytest.fixture
def open_broker() -> Iterator[BrokerService]:
    with BrokerService(BrokerConfig(endpoint=ANY_PORT, use_curve=False)) as service:
        yield service


@pytest.fixture
def messenger(broker: BrokerService) -> Iterator[Messenger]:
    with Messenger() as m:
        assert m.connect(broker.endpoint, broker.public_key)
        yield m


class RawDealer:
    """A bare DEALER that knows nothing of labhub's client."""

    def __init__(self, broker: BrokerService, *, curve: bool) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        if curve:
            key = load_key(CLIENT_KEY)
            self.socket.curve_serverkey = broker.public_key.encode()
            self.socket.curve_publickey, self.socket.curve_secretkey = key.public.encode(), key.secret.encode()
        self.socket.connect(broker.endpoint)

    def ask(self, kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
        self.socket.send_multipart([kind.encode(), json.dumps(fields).encode()])
        assert self.socket.poll(5000), "the broker did not answer"
        name, body = self.socket.recv_multipart()
        return name.decode(), json.loads(body)

    def register(self, schema_hash: str = "aa" * 32, pid: int = 12345) -> tuple[str, dict[str, Any]]:
        return self.ask(
            "REG_REQ",
            channel_name=CHANNEL,
            shm_name=CHANNEL,
            schema_hash=schema_hash,
            schema_version=1,
            producer_pid=pid,
            producer_hostname="workstation-01",
            metadata={},
        )

    def __enter__(self) -> RawDealer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(0)
        self.context.term()


class TestChannelRegistryOps:
    def test_in_memory_registry(self) -> None:
        registry = ChannelRegistry()
        entry = Registration(CHANNEL, CHANNEL, "aa" * 32, 1, 12345)
        assert registry.register_channel(CHANNEL, entry)
        assert not registry.register_channel(CHANNEL, entry)
        assert registry.find_channel(CHANNEL) is entry
        with pytest.raises(errors.SchemaMismatch, match="Schema hash differs"):
            registry.register_channel(CHANNEL, Registration(CHANNEL, CHANNEL, "bb" * 32, 2, 12345))
        assert registry.find_channel(CHANNEL) is entry
        assert not registry.deregister_channel(CHANNEL, 99)
        assert registry.deregister_channel(CHANNEL, 12345)
        assert registry.find_channel(CHANNEL) is None


class TestRegDiscHappyPath:
    def test_messenger_and_real_broker(self, messenger: Messenger) -> None:
        metadata = {"ring_buffer_capacity": 8, "policy": "RingBuffer"}
        info = ProducerInfo(CHANNEL, os.getpid(), b"\xab" * 32, 3, metadata)
        messenger.register_producer(CHANNEL, info).result(5)
        found = messenger.discover_producer(CHANNEL, 5000)
        assert found is not None
        assert (found.shm_name, found.schema_hash, found.schema_version) == (CHANNEL, b"\xab" * 32, 3)
        assert found.metadata == metadata


class TestSchemaMismatch:
    def test_second_registration_with_another_hash(self, open_broker: BrokerService) -> None:
        with RawDealer(open_broker, curve=False) as dealer:
            assert dealer.register("aa" * 32)[0] == "REG_ACK"
            kind, body = dealer.register("cc" * 32)
        assert (kind, body["status"], body["error_code"]) == ("ERROR", "error", "SCHEMA_MISMATCH")


class TestChannelNotFound:
    def test_discovering_an_unknown_channel(self, messenger: Messenger) -> None:
        assert messenger.discover_producer("no.such.channel", 2000) is None


class TestDeregHappyPath:
    def test_reg_disc_dereg_disc(self, broker: BrokerService, messenger: Messenger) -> None:
        messenger.register_producer(CHANNEL, ProducerInfo(CHANNEL, 12345, bytes(32), 1)).result(5)
        assert messenger.discover_producer(CHANNEL) is not None
        with RawDealer(broker, curve=True) as dealer:
            assert dealer.ask("DEREG_REQ", channel_name=CHANNEL, producer_pid=12345)[0] == "DEREG_ACK"
        assert messenger.discover_producer(CHANNEL) is None


class TestDeregPidMismatch:
    def test_wrong_pid_leaves_the_channel(self, open_broker: BrokerService) -> None:
        with RawDealer(open_broker, curve=False) as dealer:
            dealer.register(pid=12345)
            kind, body = dealer.ask("DEREG_REQ", channel_name=CHANNEL, producer_pid=54321)
            assert (kind, body["error_code"]) == ("ERROR", "NOT_REGISTERED")
            assert dealer.ask("DISC_REQ", channel_name=CHANNEL)[0] == "DISC_ACK"


def test_the_two_complete_programs(broker: BrokerService, tmp_path: Path) -> None:
    arguments = [broker.endpoint, broker.public_key]
    producer = subprocess.Popen([sys.executable, str(EXAMPLES / "guide_producer.py"), *arguments])
    try:
        with Messenger() as messenger:
            assert messenger.connect(*arguments)
            deadline = time.monotonic() + 20
            while messenger.discover_producer(CHANNEL) is None:
                assert time.monotonic() < deadline, "the producer did not register"
        consumer = subprocess.run(
            [sys.executable, str(EXAMPLES / "guide_consumer.py"), *arguments, "5"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert consumer.returncode == 0, consumer.stderr
        assert consumer.stdout.startswith("Discovered 'sensor.temperature' at shm='sensor.temperature' schema_v=1\n")
        assert len(re.findall(r"^T = 23\.50°C  ts = \d{19}$", consumer.stdout, re.M)) == 5
    finally:
        producer.send_signal(signal.SIGTERM)
        assert producer.wait(10) == 0
