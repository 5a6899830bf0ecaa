"""A corrupt slot: its readers are told, the broker is, and so is whoever watches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labhub import ChecksumPolicy
from labhub.datablock.location import segment_directory
from labhub.errors import ChecksumError
from labhub.hub import connect, named_broker
from tests.hub.test_trouble import ANY_PORT

VALUE = np.frombuffer(b"nobody writes these words otherwise", "u1")


def flip(channel: str) -> None:
    path = Path(segment_directory()) / channel
    content = path.read_bytes()
    assert content.count(VALUE.tobytes()) == 1
    with path.open("r+b") as file:
        file.seek(content.index(VALUE.tobytes()))
        file.write(b"N")


@pytest.mark.parametrize("checksum", ["enforced", ChecksumPolicy.ENFORCED])
def test_a_corrupt_slot_is_told_to_its_readers_and_once_to_whoever_watches(hub, checksum, caplog):
    with hub.watch(existing=False, timeout=10) as watch, hub.producer("x", VALUE, checksum=checksum) as producer:
        first, second = hub.consumer("x"), hub.consumer("x", mode="lossless", follow=True)
        producer.write(np.zeros_like(VALUE))
        producer.write(VALUE)
        flip("x")
        for consumer in (first, second):
            stream = consumer.batches(timeout=5)
            assert next(stream).seq.tolist() == [0]
            with pytest.raises(ChecksumError) as caught:
                next(stream)
            assert caught.value.seq == 1
            producer.write(np.zeros_like(VALUE))
            assert next(stream).seq[0] == 2
            assert (consumer.lost, consumer.corrupt) == (0, 1)
        with pytest.raises(ChecksumError):
            hub["x"].snapshot()
        assert hub["x"].snapshot().seq.tolist() == [0, 2, 3]  # told once, though each look attaches anew
        producer.close()
        events = [next(watch) for _ in range(3)]
        assert [(event.kind, event.detail) for event in events] == [
            ("appeared", ""),
            ("checksum_error", "seq 1"),
            ("gone", ""),
        ]
        assert "slot 1 of channel x is corrupt" in caplog.text
        # A follower keeps its account across the seam.
        with hub.producer("x", VALUE, checksum=checksum) as again:
            again.write(VALUE)
            flip("x")
            with pytest.raises(ChecksumError):
                while True:  # what was left of the first incarnation comes before
                    next(stream)
            assert second.corrupt == 2
        first.close()
        second.close()


def test_without_a_broker_the_reader_is_told_all_the_same(wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        hub = connect()
        producer = hub.producer("x", VALUE, checksum="enforced")
        consumer = hub.consumer("x")
    wait_until(lambda: hub.status != "connected")
    producer.write(VALUE)
    flip("x")
    with pytest.raises(ChecksumError):
        next(consumer.batches(timeout=5))
    hub.close()
