"""Checksums: what is stored, what is verified, and what a flipped bit in the segment file does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from labhub import (
    ChecksumPolicy,
    ConsumerSyncPolicy,
    DataBlockConfig,
    DataBlockPolicy,
    Schema,
    create_datablock_producer,
    find_datablock_consumer,
)
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.iteration import InHand, batches_of
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import (
    BackpressureTimeout,
    ChecksumError,
    ClosedError,
    ConcurrentUseError,
    IncompatibleSegment,
    InvalidArgument,
    Lapped,
    SchemaMismatch,
)

SCHEMA = Schema.infer(dtype="u1", shape=16)
STREAM = [("stream", True), ("stream", False), ("lossless", True)]


def pattern(k: int) -> np.ndarray:
    """Sixteen bytes that occur nowhere else in a segment."""
    return np.frombuffer(blake3(f"slot {k}".encode()).digest()[:16], np.uint8)


def flip(p: DataBlockProducer, k: int) -> None:
    """Flip a bit of a committed slot in the file of the segment."""
    path = Path(p.directory) / p.name
    content = path.read_bytes()
    assert content.count(pattern(k).tobytes()) == 1
    at = content.index(pattern(k).tobytes()) + 7
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))


def sealed(n: int = 0, capacity: int = 8, **options: Any) -> DataBlockProducer:
    p = open_producer("x", SCHEMA, capacity=capacity, checksum="enforced", **options)
    for k in range(n):
        p.write(pattern(k))
    return p


def drain(c: DataBlockConsumer, **options: Any) -> list[int | str]:
    """Seqs of what comes, and the corrupt ones as text."""
    seen: list[int | str] = []
    stream = c.batches(**options)
    while True:
        try:
            seen += next(stream).seq.tolist()
        except ChecksumError as error:
            seen.append(f"corrupt {error.seq}")
        except StopIteration:
            return seen


def test_every_way_of_writing_stores_the_checksum_of_the_committed_bytes() -> None:
    record = Schema.infer(dtype=[("t", "M8[ns]"), ("v", "f4", (3,))])
    with open_producer("x", record, checksum="enforced") as p, open_consumer("x", record) as c:
        p.write((np.datetime64("2026-01-01"), [1, 2, 3]))
        p.write_many([(np.datetime64("2026-01-02"), [4, 5, 6])] * 2)
        with p.slot() as s:
            s.array[...] = (np.datetime64("2026-01-03"), [7, 8, 9])
        with p.slot() as s:
            s.nbytes = 5
        batch = next(c.batches(min_slots=5, timeout=5))
        assert batch.headers["flags"].tolist() == [1] * 5
        for row, header in zip(batch.data, batch.headers, strict=True):
            assert header["checksum"].tobytes() == blake3(row.tobytes()[: header["nbytes"]]).digest()
        assert batch.verify_checksum().tolist() == [True] * 5
        batch.data["v"][1] = 0
        assert batch.verify_checksum().tolist() == [True, False, True, True, True]


@pytest.mark.parametrize(("mode", "lossless"), STREAM)
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([2], [0, 1, "corrupt 2", 3, 4]),
        ([0], ["corrupt 0", 1, 2, 3, 4]),
        ([4], [0, 1, 2, 3, "corrupt 4"]),
        ([1, 2], [0, "corrupt 1", "corrupt 2", 3, 4]),
        ([0, 1, 2, 3, 4], [f"corrupt {k}" for k in range(5)]),
    ],
)
def test_a_corrupt_slot_is_told_once_in_its_place(mode: Any, lossless: bool, bad: list[int], expected: list) -> None:
    with sealed(lossless=lossless) as p, open_consumer("x", SCHEMA, mode=mode) as c:
        told: list[int] = []
        c.tell_corrupt(told.append)
        for k in range(5):
            p.write(pattern(k))
        for k in bad:
            flip(p, k)
        p.close()
        assert drain(c) == expected
        assert told == bad
        assert (c.corrupt, c.lost) == (len(bad), 0)


def test_received_lost_and_corrupt_make_up_what_was_produced() -> None:
    with sealed() as p, open_consumer("x", SCHEMA) as c:
        for k in range(20):
            p.write(pattern(k))
        for k in (12, 15):
            flip(p, k)
        p.close()
        stream, batches, corrupt = c.batches(max_slots=3), [], []
        for _ in range(20):
            try:
                batches.append(next(stream))
            except ChecksumError as error:
                corrupt.append(error.seq)
            except StopIteration:
                break
        assert corrupt == [12, 15]
        received = sum(map(len, batches))
        assert (received, c.lost, c.corrupt) == (6, 12, 2)
        # The loss is told with the first good slot behind it.
        assert [batch.lost for batch in batches] == [12] + [0] * (len(batches) - 1)
        assert batches[0].seq[0] == 13


def test_a_corrupt_slot_at_the_start_does_not_swallow_the_loss_before_it() -> None:
    with sealed(10, capacity=4) as p, open_consumer("x", SCHEMA, start=0) as c:
        flip(p, 6)
        stream = c.batches(max_slots=1, timeout=1)
        with pytest.raises(ChecksumError):
            next(stream)
        batch = next(stream)
        assert (batch.seq.tolist(), batch.lost) == ([7], 6)


def test_reading_only_the_newest_goes_on_with_the_next() -> None:
    with sealed() as p, open_consumer("x", SCHEMA, mode="latest") as c:
        for k in range(3):
            p.write(pattern(k))
        flip(p, 2)
        stream = c.batches(timeout=5)
        with pytest.raises(ChecksumError, match="slot 2 of 'x' does not match its checksum") as caught:
            next(stream)
        assert caught.value.seq == 2
        p.write(pattern(3))
        assert next(stream).seq.tolist() == [3]
        assert (c.lost, c.corrupt) == (2, 1)


def test_history_tells_of_a_corrupt_slot_once_and_then_leaves_it_out() -> None:
    with sealed(5) as p, open_consumer("x", SCHEMA, start="oldest") as c:
        told: list[int] = []
        c.tell_corrupt(told.append)
        for k in (1, 4):
            flip(p, k)
        with pytest.raises(ChecksumError):
            c.latest()
        assert c.latest().seq.tolist() == [3]
        with pytest.raises(ChecksumError):
            c.snapshot()
        assert c.snapshot().seq.tolist() == [0, 2, 3]
        assert c.to_xarray(seconds=60).seq.values.tolist() == [0, 2, 3]
        # The cursor did not move: the stream gives its own account.
        assert c.corrupt == 0
        p.close()
        assert drain(c) == [0, "corrupt 1", 2, 3, "corrupt 4"]
        assert told == [4, 1]


def test_the_newest_of_a_ring_that_is_corrupt_altogether() -> None:
    with sealed(2, capacity=2) as p, open_consumer("x", SCHEMA, start="oldest") as c:
        for k in range(2):
            flip(p, k)
            with pytest.raises(ChecksumError):
                c.snapshot()
        with pytest.raises(TimeoutError):
            c.latest(timeout=0.1)
        p.write(pattern(2))
        assert c.latest(timeout=1).seq.tolist() == [2]


def test_a_slot_in_place_is_verified_when_it_is_left() -> None:
    with sealed() as p, open_consumer("x", SCHEMA) as c:
        for k in range(3):
            p.write(pattern(k))
        with c.slot() as s:
            assert s.verify_checksum()
        flip(p, 1)
        with pytest.raises(ChecksumError) as caught, c.slot() as s:
            assert not s.verify_checksum()
        assert (caught.value.seq, c.corrupt) == (1, 1)
        with c.slot() as s:
            assert s.seq == 2
        p.write(pattern(3))
        flip(p, 3)
        with pytest.raises(ZeroDivisionError), c.slot() as s:  # the error inside is the one to report
            raise ZeroDivisionError


def test_a_slot_that_is_overwritten_in_place_is_lapped_and_not_corrupt() -> None:
    with sealed(1, capacity=1, lossless=False) as p, open_consumer("x", SCHEMA, start=0) as c:
        with pytest.raises(Lapped), c.slot():
            p.write(pattern(1))
        assert (c.lost, c.corrupt) == (1, 0)


class Late:
    """A source whose next batch is an error, and comes only when it is let go."""

    schema = SCHEMA

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.back: list[Any] = []
        self.in_hand = InHand()

    def next_batch(self, *_: Any) -> None:
        self.entered.set()
        self.let_go.wait(10)
        raise ChecksumError("slot 7 is corrupt", seq=7)

    def put_back(self, item: Any) -> None:
        self.back.append(item)


def test_a_cancelled_async_wait_keeps_an_error_that_is_told_once() -> None:
    source = Late()

    async def cancelled() -> None:
        waiting = asyncio.ensure_future(anext(batches_of(source, 1, 1, None, False)))
        await asyncio.to_thread(source.entered.wait, 10)
        waiting.cancel()
        await asyncio.sleep(0)  # the cancellation arrives, while the wait is still in its thread
        source.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    assert [error.seq for error in source.back] == [7]
    with sealed() as p, open_consumer("x", SCHEMA) as c:
        p.write(pattern(0))
        c.put_back(source.back[0])
        with pytest.raises(ChecksumError):
            next(c.batches())
        assert next(c.batches()).seq.tolist() == [0]


def test_a_checksum_that_is_missing_or_damaged_is_corrupt_too() -> None:
    with sealed(2) as p, open_consumer("x", SCHEMA, start=0) as c:
        path = Path(p.directory) / p.name
        content = path.read_bytes()
        at = content.index(blake3(pattern(0).tobytes()).digest())
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes(32))
        at = content.index(blake3(pattern(1).tobytes()).digest()) - 8  # flags stand before epoch and checksum
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes(4))
        p.close()
        stream = c.batches()
        with pytest.raises(ChecksumError, match="does not match"):
            next(stream)
        with pytest.raises(ChecksumError, match="carries no checksum, though all should"):
            next(stream)
        assert list(stream) == []


def test_refused_and_interrupted_writes_leave_no_slot_open() -> None:
    with sealed(4, capacity=4, timeout=0.05, evict_after=None) as p:
        with pytest.raises(SchemaMismatch):
            p.write(np.zeros(3, "u1"))
        with open_consumer("x", SCHEMA, mode="lossless") as c:
            p.write_many([pattern(4), pattern(5)])
            with pytest.raises(BackpressureTimeout) as caught:
                p.write_many([pattern(6), pattern(7), pattern(8)])
            assert caught.value.written == 2
            assert next(c.batches()).seq.tolist() == [4, 5, 6, 7]
        with p.slot(), pytest.raises(ConcurrentUseError):
            p.write(pattern(8))
        assert p.write(pattern(9)) == 9
        assert p.write_many(np.empty((0, 16), "u1")) == 0
    raw = Schema.raw(16)
    with open_producer("y", raw, checksum=ChecksumPolicy.ENFORCED) as p, open_consumer("y", raw) as c:
        with pytest.raises(InvalidArgument, match="17 bytes"):
            p.write(bytes(17))
        with pytest.raises(InvalidArgument, match="contiguous"):
            p.write(memoryview(bytes(16))[::2])
        assert p.write(b"short") == 0
        assert p.write(b"") == 1
        batch = next(c.batches(min_slots=2))
        assert batch.nbytes.tolist() == [5, 0]
        assert batch.verify_checksum().all()


@pytest.mark.parametrize("checksum", ["ENFORCED", "", None, 2, True, [], "blake3"])
def test_policies_that_are_none(checksum: Any) -> None:
    with pytest.raises(InvalidArgument, match="'enforced' or a ChecksumPolicy"):
        open_producer("x", SCHEMA, checksum=checksum)


def test_the_policy_is_part_of_what_the_broker_is_told() -> None:
    with sealed() as p, open_consumer("x") as c:
        assert p.metadata()["checksum_policy"] == "Enforced"
        assert c.checksum_policy is ChecksumPolicy.ENFORCED


class TestManual:
    def test_a_checksum_where_it_is_asked_for(self) -> None:
        with open_producer("x", SCHEMA, checksum="manual") as p, open_consumer("x", SCHEMA) as c:
            p.write(pattern(0))
            with p.slot() as s:
                s.update_checksum()
                s.array[:] = pattern(1)
            bare, carrying = next(c.batches(min_slots=2)).split(1)
            with pytest.raises(InvalidArgument, match="slot 0 carries no checksum"):
                bare.verify_checksum()
            assert carrying.verify_checksum().tolist() == [True]

    def test_nobody_verifies_unasked(self) -> None:
        with open_producer("x", SCHEMA, checksum="manual") as p, open_consumer("x", SCHEMA) as c:
            with p.slot() as s:
                s.array[:] = pattern(0)
                s.update_checksum()
            flip(p, 0)
            batch = next(c.batches())
            assert batch.verify_checksum().tolist() == [False]
            assert c.corrupt == 0

    def test_without_checksums_it_is_refused(self) -> None:
        with (
            open_producer("x", SCHEMA) as p,
            pytest.raises(InvalidArgument, match="carries no checksums"),
            p.slot() as s,
        ):
            s.update_checksum()
        assert p.closed


class TestReferenceLevel:
    def create(self, policy: ChecksumPolicy | None) -> tuple[DataBlockProducer, DataBlockConsumer]:
        config = DataBlockConfig(
            consumer_sync_policy=ConsumerSyncPolicy.SEQUENTIAL_SYNC,
            ring_buffer_capacity=4,
            logical_unit_size=16,
            checksum_policy=policy,
        )
        p = create_datablock_producer("r", DataBlockPolicy.RING_BUFFER, config)
        return p, find_datablock_consumer("r", 0, config)

    def write(self, p: DataBlockProducer, k: int, *, update: bool) -> None:
        handle = p.acquire_write_slot(100)
        assert handle is not None
        handle.write(pattern(k))
        if update:
            handle.update_checksum()
        handle.commit(16)
        p.release_write_slot(handle)
        with pytest.raises(ClosedError):
            handle.update_checksum()

    def test_manual(self) -> None:
        p, c = self.create(ChecksumPolicy.MANUAL)
        with p, c:
            for k, update in enumerate((True, False, True)):
                self.write(p, k, update=update)
            flip(p, 2)
            good, bare, bad = (c.acquire_consume_slot(100) for _ in range(3))
            assert good is not None
            assert bare is not None
            assert bad is not None
            assert good.verify_checksum() is True
            assert bad.verify_checksum() is False
            with pytest.raises(InvalidArgument, match="slot 1 carries no checksum"):
                bare.verify_checksum()
            good.release()
            with pytest.raises(ClosedError):
                good.verify_checksum()

    def test_enforced(self) -> None:
        p, c = self.create(ChecksumPolicy.ENFORCED)
        with p, c:
            for k in range(3):
                self.write(p, k, update=k == 0)
            flip(p, 1)
            slot = c.acquire_consume_slot(100)
            assert slot is not None
            assert slot.verify_checksum()
            with pytest.raises(ChecksumError) as caught:
                c.acquire_consume_slot(100)
            assert caught.value.seq == 1
            slot = c.acquire_consume_slot(100)
            assert slot is not None
            assert slot.seq == 2

    def test_none_and_a_policy_that_does_not_match(self) -> None:
        p, c = self.create(None)
        with p, c:
            handle = p.acquire_write_slot(0)
            assert handle is not None
            with pytest.raises(InvalidArgument, match="carries no checksums"):
                handle.update_checksum()
            handle.commit(1)
            p.release_write_slot(handle)
            slot = c.acquire_consume_slot(100)
            assert slot is not None
            with pytest.raises(InvalidArgument, match="carries no checksum"):
                slot.verify_checksum()
            with pytest.raises(IncompatibleSegment, match="checksum_policy"):
                find_datablock_consumer("r", 0, DataBlockConfig(checksum_policy=ChecksumPolicy.ENFORCED))


def test_ctrl_c_in_a_write_that_waits_leaves_no_slot_open() -> None:
    with sealed(capacity=1, timeout=None, evict_after=None) as p, open_consumer("x", SCHEMA, mode="lossless") as c:
        p.write(pattern(0))
        for write in (lambda: p.write(pattern(1)), lambda: p.write_many([pattern(1)])):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                write()
            timer.join(60)
        assert next(c.batches(timeout=5)).seq.tolist() == [0]
        assert p.write(pattern(1)) == 1
        assert next(c.batches(timeout=5)).verify_checksum().tolist() == [True]
