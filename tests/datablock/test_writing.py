"""What may be written, and what happens to a slot that is not finished."""

from __future__ import annotations

import gc
import os
from typing import Any

import numpy as np
import pytest

from labhub import (
    ConsumerSyncPolicy,
    DataBlockConfig,
    DataBlockPolicy,
    Schema,
    create_datablock_producer,
    find_datablock_consumer,
)
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import default_capacity, segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import (
    BackpressureTimeout,
    ClosedError,
    ConcurrentUseError,
    InvalidArgument,
    InvalidName,
    SchemaMismatch,
    SegmentTokenMismatch,
)

RECORD = Schema.infer(dtype=[("p", "f4"), ("n", "i2"), ("v", "f8", (2,))])


def read_back(schema: Schema, value: object) -> np.ndarray:
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write(value)
        return next(c.batches(timeout=1)).data[0]


@pytest.mark.parametrize(
    "value",
    [
        {"p": 1.5, "n": 7, "v": [1, 2]},
        (1.5, 7, (1.0, 2.0)),
        np.array((1.5, 7, (1, 2)), RECORD.dtype),
        np.array([(1.5, 7, (1, 2))], RECORD.dtype)[0],
        np.array((1.5, 7, (1, 2)), RECORD.dtype).tobytes(),
    ],
    ids=["dict", "tuple", "array", "void", "bytes"],
)
def test_records_of_every_kind(value: object) -> None:
    assert read_back(RECORD, value) == np.array((1.5, 7, (1, 2)), RECORD.dtype)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("f4", 3),
        ("f4", np.float64(1.5)),
        ("i2", 300),
        ("u1", 255),
        ("?", True),
        ("M8[ns]", np.datetime64("2026-01-01")),
    ],
)
def test_scalars_that_survive_the_conversion(dtype: str, value: Any) -> None:
    assert read_back(Schema.infer(dtype=dtype), value) == value


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (Schema.infer(dtype="i4"), 1.5, "float64 does not convert"),
        (Schema.infer(dtype="i2"), 70_000, "cannot hold"),
        (Schema.infer(dtype="u1"), -1, "cannot hold"),
        (Schema.infer(dtype="f4"), "text", "does not convert"),
        (Schema.infer(dtype="f4"), 1j, "complex128 does not convert"),
        (Schema.infer(dtype="f4", shape=(3,)), 1.0, r"shape \(3,\)"),
        (Schema.infer(dtype="f4", shape=(3,)), [1.0, 2.0], r"shape \(3,\)"),
        (Schema.infer(dtype="f4", shape=(3,)), b"1234", "12 bytes"),
        (RECORD, {"p": 1.0, "n": 1}, "field 'v': missing"),
        (RECORD, {"p": 1.0, "n": 1, "v": [0, 0], "w": 1}, "field 'w': not in the schema"),
        (RECORD, (1.0, 1), "3 fields"),
        (RECORD, 1.0, "a dict or a tuple"),
        (RECORD, {"p": 1.0, "n": 1.5, "v": [0, 0]}, "field 'n'"),
        (RECORD, np.zeros((), [("p", "f8"), ("n", "i2"), ("v", "f8", (2,))]), "field 'p'"),
    ],
)
def test_nothing_is_cast_or_broadcast_silently(schema: Schema, value: object, message: str) -> None:
    with open_producer("x", schema) as p:
        with pytest.raises(SchemaMismatch, match=message):
            p.write(value)
        assert p.next_seq == 0


def test_many_records_at_once() -> None:
    with open_producer("x", RECORD, capacity=100) as p, open_consumer("x", RECORD) as c:
        assert p.write_many([(k, k, (k, k)) for k in range(10)]) == 10
        assert p.write_many(np.zeros(5, RECORD.dtype)) == 5
        with pytest.raises(SchemaMismatch):
            p.write_many(np.zeros((5, 2), RECORD.dtype))
        with pytest.raises(InvalidArgument):
            p.write_many(7)
        assert next(c.batches()).data["n"].tolist() == [*range(10), 0, 0, 0, 0, 0]


def test_an_exception_inside_a_slot_aborts_it() -> None:
    schema = Schema.infer(np.zeros(4))
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        with pytest.raises(ZeroDivisionError), p.slot() as s:
            s.array[:] = 1 / 0
        assert p.next_seq == 0
        with p.slot() as s:
            s.array[:] = 7
            assert s.seq == 0
            with pytest.raises(ConcurrentUseError, match="already open"):
                p.write(np.zeros(4))
        assert next(c.batches(timeout=1)).data.tolist() == [[7.0] * 4]
        assert p.stats()["aborts"] == 1


def test_partial_commits_reach_the_reader() -> None:
    schema = Schema.infer(np.zeros(4, "u1"))
    with open_producer("x", schema, capacity=1) as p, open_consumer("x", schema) as c:
        p.write(np.full(4, 9, "u1"))
        with p.slot() as s:
            s.array[:2] = 7
            s.nbytes = 2
        batch = c.snapshot()
        assert batch.nbytes.tolist() == [2]
        assert batch.data.tolist() == [[7, 7, 0, 0]]
        with pytest.raises(InvalidArgument, match="5 bytes"), p.slot() as s:
            s.nbytes = 5
        assert p.next_seq == 2
        p.write(np.zeros(4, "u1"))


def test_after_close() -> None:
    p = open_producer("x", RECORD)
    p.close()
    p.close()
    for use in (lambda: p.write((1, 1, (0, 0))), p.slot().__enter__, p.stats):
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(p)
    assert os.listdir(segment_directory()) == []


def test_dropping_the_last_reference_closes() -> None:
    p = open_producer("x", RECORD)
    c = open_consumer("x", RECORD)
    del p
    gc.collect()
    assert c.ended
    assert list(c.batches()) == []
    c.close()


def test_back_pressure_ends_in_an_error_that_names_the_reader() -> None:
    schema = Schema.infer(dtype="i8")
    with (
        open_producer("x", schema, capacity=4, timeout=0.05, evict_after=None) as p,
        open_consumer("x", schema, mode="lossless") as c,
    ):
        p.write_many([0, 1, 2, 3])
        with pytest.raises(BackpressureTimeout) as caught:
            p.write(4)
        assert (caught.value.pid, caught.value.lag) == (os.getpid(), 4)
        with pytest.raises(BackpressureTimeout) as caught:
            p.write_many([4, 5])
        assert caught.value.written == 0  # type: ignore[attr-defined]
        assert next(c.batches(max_slots=1)).data.tolist() == [0]
        p.write(4)


def test_a_stuck_reader_is_evicted_when_its_time_is_up_and_not_a_wait_slice_later() -> None:
    schema = Schema.infer(dtype="i8")
    waited = []
    with open_producer("x", schema, capacity=1, evict_after=0.005) as p:
        for _ in range(10):  # one of them is not held up by a busy machine
            with open_consumer("x", schema, mode="lossless"):
                p.write(0)
                before = p.stats()["blocked_ns"]
                p.write(1)
                waited.append(p.stats()["blocked_ns"] - before)
        assert p.stats()["evictions"] == 10
    assert 5e6 <= min(waited) < 45e6


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "a\0", "\ud800", "ｘ", "a" * 129, 7, None])
def test_hostile_names(name: Any) -> None:
    with pytest.raises(InvalidName):
        open_producer(name, RECORD)
    with pytest.raises(InvalidName):
        open_consumer(name, RECORD)


@pytest.mark.parametrize(
    "options",
    [{"capacity": 0}, {"capacity": 1.5}, {"timeout": -1}, {"timeout": "x"}, {"evict_after": -1}, {"lossless": "yes"}],
)
def test_bad_options(options: dict) -> None:
    with pytest.raises(InvalidArgument):
        open_producer("x", RECORD, **options)
    assert not os.path.exists(segment_directory()) or os.listdir(segment_directory()) == []


def test_default_capacity_fits_eight_megabytes_or_a_small_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_capacity(64, "/dev/shm") == 65536
    assert default_capacity(4 << 20, "/dev/shm") == 8
    monkeypatch.setattr("labhub.datablock.location._file_system_nbytes", lambda _: 64 << 20)
    assert default_capacity(64, "/dev/shm") == 8192
    assert default_capacity(4 << 20, "/dev/shm") == 2


class TestReferenceLevel:
    CONFIG = DataBlockConfig(
        consumer_sync_policy=ConsumerSyncPolicy.SEQUENTIAL_SYNC,
        ring_buffer_capacity=4,
        logical_unit_size=16,
        shared_secret=0xDEADBEEF,
    )

    def test_commit_lengths_and_timeouts(self) -> None:
        with create_datablock_producer("r", DataBlockPolicy.RING_BUFFER, self.CONFIG) as p:
            with find_datablock_consumer("r", 0xDEADBEEF, self.CONFIG) as c:
                assert c.acquire_consume_slot(1) is None
                for k in range(4):
                    handle = p.acquire_write_slot(100)
                    assert handle is not None
                    handle.write(bytes([k]) * k)
                    handle.commit(k)
                    p.release_write_slot(handle)
                assert p.acquire_write_slot(1) is None
                for k in range(4):
                    slot = c.acquire_consume_slot(100)
                    assert slot is not None
                    assert slot.read() == bytes([k]) * k
                    assert slot.read(min(k, 2)) == bytes([k]) * min(k, 2)
                    buffer = bytearray(16)
                    assert slot.read_into(buffer) == k
                    slot.reset()
                    with pytest.raises(ClosedError):
                        slot.read()
            with pytest.raises(SegmentTokenMismatch):
                find_datablock_consumer("r", 1)

    def test_an_uncommitted_handle_is_aborted(self) -> None:
        with create_datablock_producer("r", DataBlockPolicy.RING_BUFFER, self.CONFIG) as p:
            handle = p.acquire_write_slot(0)
            assert handle is not None
            with pytest.raises(InvalidArgument, match="17 bytes"):
                handle.write(bytes(17))
            with pytest.raises(InvalidArgument):
                handle.commit(17)
            p.release_write_slot(handle)
            p.release_write_slot(handle)
            assert p.next_seq == 0
            with pytest.raises(ClosedError):
                handle.write(b"")

    def test_latest_only_hands_out_the_newest_unseen(self) -> None:
        config = DataBlockConfig(ring_buffer_capacity=4, logical_unit_size=8)
        with create_datablock_producer("r", DataBlockPolicy.RING_BUFFER, config) as p:
            p.write(b"old")
            p.write(b"new")
            with find_datablock_consumer("r", 0) as c:
                slot = c.acquire_consume_slot(0)
                assert slot is not None
                assert slot.read() == b"new"
                assert c.acquire_consume_slot(1) is None

    @pytest.mark.parametrize(("policy", "n"), [(DataBlockPolicy.SINGLE, 1), (DataBlockPolicy.DOUBLE_BUFFER, 2)])
    def test_fixed_policies(self, policy: DataBlockPolicy, n: int) -> None:
        with create_datablock_producer("r", policy) as p:
            assert (p.capacity, p.schema.slot_nbytes) == (n, 4096)
        with pytest.raises(InvalidArgument):
            create_datablock_producer("r", policy, DataBlockConfig(ring_buffer_capacity=7))
