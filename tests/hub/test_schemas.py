"""Schemas that do not fit, with every field that differs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from labhub import Messenger, ProducerInfo, Schema, liveness
from labhub.errors import ChannelNotFound, InvalidArgument, SchemaConflict, SchemaMismatch

FIELDS = [("a", "f4"), ("b", "i2"), ("c", "f8")]


def test_the_schema_of_a_channel(hub):
    with hub.producer("x", dtype=FIELDS, units={"a": "V"}) as producer:
        assert hub.schema("x") == producer.schema
        assert hub.schema("x").units == {"a": "V"}
        with pytest.raises(ChannelNotFound, match="Did you mean 'x'"):
            hub.schema("xx")
    with pytest.raises(ChannelNotFound, match="It knows no channel yet"):
        hub.schema("x")


@pytest.mark.parametrize("dtype", ["f4", ">f8", "u8", "S8", "M8[ns]"])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_reader_that_expects_something_else(hub, dtype, shape):
    with hub.producer("x", dtype="f8"):
        with pytest.raises(SchemaMismatch, match="carries something else than was expected") as caught:
            hub.consumer("x", schema=Schema.infer(dtype=dtype, shape=shape))
        assert f"field 'value': {np.dtype(dtype).str} here, <f8 there" in caught.value.difference
        assert len(caught.value.difference) == 1 + bool(shape)
        assert hub.find("x").consumers == 0
        with pytest.raises(InvalidArgument, match=r"Schema.infer makes one"):
            hub.consumer("x", schema=dtype)


def test_a_follower_that_expects_a_schema_meets_another(hub):
    with hub.producer("x", dtype="f8") as producer:
        consumer = hub.consumer("x", follow=True, schema=producer.schema)
    with hub.producer("x", dtype="i4"):
        with pytest.raises(SchemaMismatch):
            next(consumer.batches(timeout=5))
    consumer.close()


def test_a_registration_that_is_not_what_the_segment_holds(hub, broker):
    with hub.producer("x", dtype="f8") as producer, Messenger() as liar:
        liar.connect(broker.endpoint, broker.public_key)
        block = producer._block
        metadata = block.metadata() | liveness.place_of(block.directory)
        metadata["schema"] = Schema.infer(dtype="f4").to_json()
        liar.register_producer("y", ProducerInfo("x", os.getpid(), bytes(32), 1, metadata)).result(5)
        with pytest.raises(SchemaMismatch, match="its segment holds something else") as caught:
            hub.consumer("y", timeout=1)
        assert "slot: 4 bytes registered, 8 in the segment" in caught.value.difference
        with pytest.raises(SchemaMismatch) as caught:
            hub.consumer("y", schema=producer.schema)
        assert caught.value.difference == ("field 'value': <f8 here, <f4 there",)


def test_an_undeclared_channel_is_not_what_is_expected(hub, broker):
    with Messenger() as messenger:
        messenger.connect(broker.endpoint, broker.public_key)
        messenger.register_producer("raw", ProducerInfo("raw", 1, bytes(32), 1)).result(5)
        assert hub.schema("raw") is None
        with pytest.raises(SchemaMismatch, match="nothing declared"):
            hub.consumer("raw", schema=Schema.infer(dtype="f8"))


def test_the_brokers_refusal_names_the_fields(hub, broker):
    with Messenger() as messenger:
        messenger.connect(broker.endpoint, broker.public_key)
        other = Schema.infer(dtype="f4")
        for metadata, difference in (
            ({"schema": other.to_json()}, "field 'value': <f8 here, <f4 there"),
            ({}, "schema hash: "),
        ):
            info = ProducerInfo("elsewhere", 1, other.layout_hash, 1, metadata)
            messenger.register_producer("x", info).result(5)
            with pytest.raises(SchemaConflict) as caught:
                hub.producer("x", dtype="f8")
            assert caught.value.difference[0].startswith(difference)
            assert caught.value.pid == 1
            messenger.deregister_producer("x", 1).result(5)
