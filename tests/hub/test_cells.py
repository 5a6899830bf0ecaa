"""Running a notebook cell again just works."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from labhub.errors import ClosedError, InvalidArgument, SchemaMismatch


def test_the_same_cell_gives_the_same_producer(hub, caplog):
    for value in (1.0, 2.0, 3.0):
        producer = hub.producer("x", like=np.float64(0), units="V")
        producer.write(value)
    assert (producer.next_seq, producer.epoch) == (3, 1)
    assert caplog.records == []


def test_another_schema_closes_the_earlier_producer_and_says_so(hub, caplog):
    producer = hub.producer("x", dtype="f8")
    earlier = producer
    with hub.consumer("x") as consumer:
        producer.write(1.0)
        producer = hub.producer("x", dtype="f4", shape=3)
        assert earlier.closed
        assert [batch.data.tolist() for batch in consumer.batches(timeout=5)] == [[1.0]]
    with pytest.raises(ClosedError):
        earlier.write(2.0)
    producer.write([1, 2, 3])
    assert hub.find("x").layout == "float32[3]"
    assert "'x': closed its earlier producer, which differs: shape: () here, (3,) there" in caplog.text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"units": "bar"}, "units={'value': 'bar'}) now"),
        ({"capacity": 32}, "capacity: 16 before, 32 now"),
        ({"lossless": False}, "lossless: True before, False now"),
        ({"checksum": "manual"}, "checksum: none before, manual now"),
    ],
)
def test_what_else_makes_another_producer(hub, caplog, changed, words):
    declared = {"dtype": "f8", "units": "V", "capacity": 16}
    producer = earlier = hub.producer("x", **declared)
    producer = hub.producer("x", **declared | changed)
    assert earlier.closed
    assert not producer.closed
    assert words in caplog.text


def test_timeouts_are_taken_over_without_a_new_producer(hub):
    producer = hub.producer("x", dtype="f8", timeout=1.0)
    assert hub.producer("x", dtype="f8", timeout=0.01, evict_after=None, capacity=producer.capacity) is producer


def test_the_first_write_declares_the_schema(hub):
    with hub.producer("x", units="V") as producer:
        assert repr(producer) == "Producer('x', schema left to the first write)"
        assert (producer.schema, producer.capacity, producer.next_seq, producer.epoch) == (None, None, 0, 0)
        assert producer.stats() == {}
        assert hub.channels() == []
        with pytest.raises(InvalidArgument, match="not known yet"), producer.slot():
            pass
        producer.write(np.float32(1.5))
        assert hub.find("x").units == {"value": "V"}
        assert producer.schema.dtype == np.float32
        with pytest.raises(SchemaMismatch):
            producer.write([1.0, 2.0])
    with pytest.raises(ClosedError):
        producer.write(1.0)


@pytest.mark.parametrize("records", [np.arange(6.0).reshape(3, 2), [{"a": 1, "b": 2.0}] * 3])
def test_the_first_write_may_be_many(hub, records):
    with hub.producer("x") as producer:
        assert producer.write_many(records) == 3
        assert hub["x"].snapshot().data.shape[0] == 3


def test_a_cell_that_leaves_the_schema_to_its_writes_runs_again(hub, caplog):
    for value in (1.0, 2.0):
        producer = hub.producer("x")
        producer.write(value)
    assert producer.next_seq == 2
    assert caplog.records == []
    producer = hub.producer("x")
    producer.write([1, 2, 3])
    assert producer.next_seq == 1
    assert "closed its earlier producer" in caplog.text
    producer.close()


def test_an_undeclared_producer_is_declared_by_the_next_cell(hub):
    producer = hub.producer("x")
    assert hub.producer("x", dtype="f8") is producer
    assert producer.schema.dtype == np.float64


def test_a_closed_producer_is_not_used_again(hub, caplog):
    with hub.producer("x", dtype="f8") as first:
        first.write(1.0)
    with hub.producer("x", dtype="f8") as second:
        assert second is not first
        assert second.next_seq == 0
    assert caplog.records == []
    with pytest.raises(ClosedError), first:
        pass


def test_a_refused_registration_is_raised_and_leaves_nothing(hub, private_dirs, run_elsewhere, caplog):
    caplog.set_level(logging.CRITICAL)
    reference = run_elsewhere(
        """
        import sys, labhub, labhub.runtime
        messenger = labhub.Messenger()
        found = labhub.runtime.find()
        messenger.connect(found.endpoint, found.public_key)
        info = labhub.ProducerInfo(shm_name="elsewhere", producer_pid=1, schema_hash=b"\\1" * 32, schema_version=1)
        messenger.register_producer("x", info).result(10)
        print("ready", flush=True)
        sys.stdin.read()
        """
    )
    assert reference.stdout.readline() == "ready\n"
    with pytest.raises(SchemaMismatch, match="'x'"):
        hub.producer("x", dtype="f8")
    assert list((private_dirs / "shm").rglob("x")) == []
    assert hub.find("x").producer_pid == 1
