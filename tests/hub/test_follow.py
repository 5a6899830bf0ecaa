"""A reader that follows its channel, and a hub that follows its broker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from labhub.errors import TimeoutExpired
from labhub.hub import connect, named_broker

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.mark.parametrize("mode", ["stream", "lossless", "latest"])
def test_a_follower_meets_the_next_producer_across_a_seam(hub, mode):
    with hub.producer("x", dtype="f8") as first:
        consumer = hub.consumer("x", mode=mode, follow=True)
        stream = consumer.batches(timeout=10)
        first.write(1.0)
        batch = next(stream)
        assert (batch.data.tolist(), batch.epoch) == ([1.0], 1)
    # Another dtype, and therefore in any case another segment.
    with hub.producer("x", dtype="i4") as second:
        second.write(2)
        batch = next(stream)
        assert (batch.data.tolist(), batch.data.dtype, batch.epoch, batch.lost) == ([2], "i4", 2, 0)
        assert consumer.epoch == 2
    consumer.close()


def test_a_follower_counts_what_it_missed_of_the_next_incarnation(hub):
    consumer = None
    with hub.producer("x", dtype="f8", capacity=4) as first:
        consumer = hub.consumer("x", follow=True)
        first.write_many([0.0] * 10)
    with hub.producer("x", dtype="f8", capacity=4) as second:
        second.write_many([1.0] * 7)
        stream = consumer.batches(timeout=10)
        batches = [next(stream), next(stream)]
        assert [len(batch) for batch in batches] == [4, 4]
        assert [batch.lost for batch in batches] == [6, 3]
        assert consumer.lost == 9
    consumer.close()


def test_a_follower_times_out_while_the_channel_is_away(hub):
    with hub.producer("x", dtype="f8"):
        consumer = hub.consumer("x", follow=True)
    with pytest.raises(TimeoutExpired, match=r"did not come back within 0.3 s"):
        next(consumer.batches(timeout=0.3))
    with hub.producer("x", dtype="f8") as producer:
        stream = consumer.batches(timeout=10)
        producer.write(1.0)
        assert next(stream).data.tolist() == [1.0]
    consumer.close()


def test_a_follower_that_waits_can_be_closed(hub):
    with hub.producer("x", dtype="f8"):
        consumer = hub.consumer("x", follow=True)
    reader = threading.Thread(target=lambda: list(consumer))
    reader.start()
    consumer.close()
    reader.join(10)
    assert not reader.is_alive()


def test_a_follower_works_with_asyncio(hub):
    async def read():
        seen = []
        with hub.producer("x", dtype="f8") as producer:
            consumer = hub.consumer("x", follow=True)
            producer.write(1.0)
        async for batch in consumer.batches(timeout=10):
            seen.append((batch.epoch, batch.data.tolist()))
            if len(seen) == 2:
                break
            again = hub.producer("x", dtype="f8")
            again.write(2.0)
        consumer.close()
        again.close()
        return seen

    assert asyncio.run(read()) == [(1, [1.0]), (2, [2.0])]


def test_without_follow_the_iteration_ends(hub):
    with hub.producer("x", dtype="f8") as producer:
        consumer = hub.consumer("x")
        producer.write(1.0)
    assert [ds.value.values.tolist() for ds in consumer.datasets()] == [[1.0]]
    assert list(consumer) == []
    consumer.close()


def test_a_hub_follows_its_broker_to_another_endpoint(wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        before = service.start().endpoint
        hub = connect()
        producer = hub.producer("x", dtype="f8")
        consumer = hub.consumer("x")
    wait_until(lambda: hub.status != "connected")
    producer.write(1.0)
    assert next(consumer.batches(timeout=5)).data.tolist() == [1.0]
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        assert service.endpoint != before
        wait_until(lambda: hub.status == "connected")
        assert hub.wait_for("x", timeout=10).liveness == "alive"
        assert connect() is hub
        wait_until(lambda: hub.find("x").consumers == 1)
        producer.write(2.0)
        assert next(consumer.batches(timeout=5)).data.tolist() == [2.0]
        hub.close()


def test_a_hub_closes_quickly_without_its_broker(wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        hub = connect()
        producers = [hub.producer(f"x{k}", dtype="f8") for k in range(20)]
    wait_until(lambda: hub.status != "connected")
    closing = threading.Thread(target=hub.close)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    assert all(producer.closed for producer in producers)
