"""What a producer written from the document alone writes, real labhub reads, evicts, takes over and hands back."""

from __future__ import annotations

import os
import threading

import blake3
import numpy as np
import pytest

from labhub import _native
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import ChannelBusy
from labhub.schema import Schema

from .real_labhub import WORDS, RealLabhub, is_whole, slots
from .schema_hash import layout_hash
from .segment_file import LATEST_ONLY, Busy
from .segment_reader import SegmentReader
from .segment_writer import ENFORCED, SegmentWriter

SCHEMA = Schema(np.dtype("u8"), (WORDS,))
SLOT_NBYTES = 8 * WORDS
PATIENCE = 10.0


def writer(capacity: int = 8, **how: int) -> SegmentWriter:
    schema_hash = layout_hash(SCHEMA.to_json())
    return SegmentWriter(
        segment_directory(), "x", capacity=capacity, slot_nbytes=SLOT_NBYTES, schema_hash=schema_hash, **how
    )


def write(producer: SegmentWriter, n: int) -> None:
    for slot in slots(producer.head, n):
        producer.write(slot.tobytes())


def read_to_the_end(consumer: DataBlockConsumer, produced: int) -> int:
    """Read everything and check it; how much was received."""
    received, last = 0, -1
    for batch in consumer.batches(timeout=PATIENCE):
        for seq, value in zip(batch.seq.tolist(), batch.data, strict=True):
            assert seq > last
            assert is_whole(value.tobytes(), seq)
            last = seq
        received += len(batch.seq)
    assert received + consumer.lost == produced
    return received


@pytest.mark.parametrize("mode", ["stream", "lossless"])
def test_labhub_reads_it(mode: str) -> None:
    with writer() as producer, open_consumer("x", SCHEMA, mode=mode) as consumer:  # type: ignore[arg-type]

        def produce() -> None:
            write(producer, 2000)
            producer.close()

        thread = threading.Thread(target=produce)
        thread.start()
        received = read_to_the_end(consumer, 2000)
        thread.join(PATIENCE)
        assert mode == "stream" or (received, consumer.lost) == (2000, 0)


def test_a_slot_may_be_shorter_than_its_place() -> None:
    with writer() as producer, open_consumer("x", mode="lossless") as consumer:
        producer.write(b"abc")
        batch = next(consumer.batches(timeout=PATIENCE))
        assert batch.nbytes.tolist() == [3]
        assert batch.data.tobytes() == b"abc" + bytes(SLOT_NBYTES - 3)
        assert batch.epoch == 1


@pytest.mark.parametrize("time_ns", [0, -1, 1, 2**63 - 1, -(2**63) + 1])
def test_every_number_is_a_time(time_ns: int) -> None:
    with writer() as producer, open_consumer("x", mode="lossless") as consumer:
        producer.write(b"", time_ns=time_ns)
        assert next(consumer.batches(timeout=PATIENCE)).timestamp_ns.tolist() == [time_ns]


def test_a_segment_that_declares_no_schema_is_compared_with_none() -> None:
    with SegmentWriter(segment_directory(), "x", capacity=8, slot_nbytes=SLOT_NBYTES) as producer:
        with open_consumer("x", SCHEMA) as consumer:
            write(producer, 2)
            assert np.array_equal(next(consumer.batches(timeout=PATIENCE)).data, slots(0, 2))


def test_two_writers_in_line() -> None:
    with writer(), pytest.raises(ChannelBusy, match=f"process {os.getpid()}"):
        open_producer("x", SCHEMA, capacity=8)
    with open_producer("x", SCHEMA, capacity=8), pytest.raises(Busy):
        writer()


def test_the_two_take_each_other_over() -> None:
    first = writer()
    with open_consumer("x", SCHEMA) as consumer:
        write(first, 3)
        first.claim()
        first.abandon()
        assert _native.slot_states(segment_directory(), "x") == {
            "empty": 4, "committed": 3, "holes": 0, "writing": 1, "uncommitted": 0
        }  # fmt: skip
        with RealLabhub() as real:
            assert real.ask("produce", name="x", capacity=8) == {"took_over": True, "epoch": 2}
            real.ask("write", n=3)
            real.kill()
        with writer() as third:
            assert third.took_over
            assert third.epoch == 3
            write(third, 2)
        epochs = [(b.epoch, len(b.seq)) for b in consumer.batches(timeout=PATIENCE)]
        assert epochs == [(1, 3), (2, 3), (3, 2)]
        assert consumer.ended


def test_a_complete_slot_is_committed_by_the_next_producer() -> None:
    first = writer()
    write(first, 2)
    first.map.put("CommitLine", "commit", 1)  # as if it had died before the last commit
    first.abandon()
    assert _native.slot_states(segment_directory(), "x")["uncommitted"] == 1
    with writer() as second:
        assert second.head == second.map.get("CommitLine", "commit") == 2


def test_another_shape_replaces_it() -> None:
    first = writer()
    with open_consumer("x", SCHEMA) as consumer:
        write(first, 2)
        first.abandon()
        with writer(capacity=9) as second:
            assert not second.took_over
            assert read_to_the_end(consumer, 2) == 2
            assert consumer.instance_id != second.map.raw("Identity", "instance_id")


def test_a_dead_labhub_reader_is_evicted(real: RealLabhub) -> None:
    with writer(capacity=4) as producer:
        real.ask("consume", name="x", mode="lossless")
        write(producer, 4)
        with pytest.raises(TimeoutError):
            producer.write(b"", seconds=0.1)
        real.kill()
        write(producer, 10)
        assert producer.map.get("CounterLine", "evictions") == 1


def test_a_producer_that_never_waits_takes_no_lossless_readers() -> None:
    with writer(sync=LATEST_ONLY) as producer:
        with pytest.raises(ValueError, match="LATEST_ONLY"):
            open_consumer("x", SCHEMA, mode="lossless")
        with open_consumer("x", SCHEMA) as consumer:
            write(producer, 20)
            batch = next(consumer.batches(timeout=PATIENCE))
            assert batch.seq.tolist() == list(range(12, 20))
            assert consumer.lost == 12


def test_checksums_are_over_the_committed_bytes() -> None:
    with writer(checksum=ENFORCED) as producer, SegmentReader(segment_directory(), "x") as reader:
        producer.write(b"abc")
        (slot,) = reader.read()
        assert slot.flags == 1
        assert slot.checksum == blake3.blake3(slot.payload[: slot.nbytes]).digest()
        with open_consumer("x", SCHEMA, start="oldest") as consumer:
            batch = next(consumer.batches(timeout=PATIENCE))
            assert batch.headers["flags"].tolist() == [1]
            assert batch.headers["checksum"][0].tobytes() == slot.checksum
