"""The short ways of the compiled core: `write` of what is a slot as it stands, and `views`, slot by slot in place."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import ClosedError, Evicted, InvalidArgument, Lapped, SchemaMismatch, TimeoutExpired

PAIR = Schema.infer(dtype="f8", shape=(2, 2))
FIELDS = Schema.infer(dtype=[("t", "f8"), ("n", "i4")])
NUMBER = Schema.infer(dtype="i8")


@pytest.fixture
def converted(monkeypatch) -> list[object]:
    """Everything that took the long way."""
    seen: list[object] = []
    long_way = DataBlockProducer._write_converted

    def noted(self: DataBlockProducer, record: object) -> int:
        seen.append(record)
        return long_way(self, record)

    monkeypatch.setattr(DataBlockProducer, "_write_converted", noted)
    return seen


def test_write_takes_exactly_the_right_arrays(converted) -> None:
    good = np.arange(4.0).reshape(2, 2)
    long = (good.T, good.astype("f4"), good.tolist(), np.asfortranarray(good), good[::-1], good.view(np.recarray))
    with open_producer("x", PAIR, capacity=8, lossless=False) as p, open_consumer("x", PAIR) as c:
        assert p.write(good) == 0
        assert converted == []
        for record in long:
            p.write(record)
        assert [id(r) for r in converted] == [id(r) for r in long]
        for refused in (good.reshape(4), good.reshape(4, 1), good[:1], 1.0, None, good.astype("c16")):
            with pytest.raises((SchemaMismatch, InvalidArgument)):
                p.write(refused)
            assert converted.pop() is refused
        batch = next(c.batches())
        assert batch.data.tolist() == [a.tolist() for a in (good, *long[:2], good, *long[3:])]
    with pytest.raises(ClosedError):
        p.write(good)


def test_write_takes_records_of_an_equal_dtype(converted) -> None:
    same = np.dtype([("t", "f8"), ("n", "i4")])
    assert same is not FIELDS.dtype
    renamed = np.array((1.5, 2), [("t", "f8"), ("m", "i4")])
    with open_producer("x", FIELDS, capacity=8, lossless=False) as p, open_consumer("x", FIELDS) as c:
        p.write(np.array((1.5, 2), same))
        assert converted == []
        with pytest.raises(SchemaMismatch):
            p.write(renamed)
        assert next(c.batches()).data.tolist() == [(1.5, 2)]


def test_write_takes_records_and_times() -> None:
    with open_producer("x", FIELDS, capacity=8, lossless=False) as p, open_consumer("x", FIELDS) as c:
        record = np.array((1.5, 2), FIELDS.dtype)
        p.write(record)
        p.write(record[()])
        p.write({"t": 1.5, "n": 2})
        assert next(c.batches()).data.tolist() == [(1.5, 2)] * 3
    times = Schema.infer(dtype="M8[ns]")
    with open_producer("x", times, capacity=8, lossless=False) as p, open_consumer("x", times) as c:
        now = np.array("2026-01-01T00:00:00", times.dtype)
        p.write(now)
        assert next(c.batches()).data[0] == now


def test_write_takes_raw_bytes_up_to_a_slot(converted) -> None:
    raw = Schema.raw(8)
    with open_producer("x", raw, capacity=8, lossless=False) as p, open_consumer("x", raw) as c:
        assert p.write(b"abc") == 0
        assert converted == []
        p.write(bytearray(b"abcd"))
        p.write(memoryview(b"abcdefgh"))
        with pytest.raises(InvalidArgument, match="9 bytes do not fit"):
            p.write(bytes(9))
        assert next(c.batches()).nbytes.tolist() == [3, 4, 8]
    with open_producer("x", NUMBER, capacity=8, lossless=False) as p:
        p.write(bytes(8))  # bytes of another schema are exactly one slot, or refused
        assert converted.pop() == bytes(8)
        with pytest.raises(SchemaMismatch):
            p.write(bytes(7))


@pytest.mark.parametrize("mode", ["stream", "lossless"])
def test_views_give_every_slot_in_place(mode) -> None:
    with open_producer("x", NUMBER, capacity=4, evict_after=None) as p, open_consumer("x", NUMBER, mode=mode) as c:
        seen = []
        p.write(0)
        for view in c.views(timeout=5):
            assert not view.flags.writeable
            assert c.cursor == int(view)
            seen.append(int(view))
            if len(seen) == 11:
                break
            p.write(len(seen))
        assert seen == list(range(11))  # around the ring, with no view made twice
        assert c.cursor == 11  # leaving the loop has released the last
        with pytest.raises(TimeoutExpired):
            next(c.views(timeout=0.01))
        p.write(11)
        p.close()
        assert [int(v) for v in c.views()] == [11]  # ends with the stream
        assert c.lost == 0


def test_views_of_the_latest() -> None:
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER, mode="latest") as c:
        p.write_many([0, 1, 2])
        assert int(next(c.views(timeout=5))) == 2
        assert c.lost == 2


def test_a_view_that_was_overwritten_is_told_at_the_next_step() -> None:
    with open_producer("x", NUMBER, capacity=2, lossless=False) as p, open_consumer("x", NUMBER) as c:
        p.write(0)
        views = c.views(timeout=5)
        assert int(next(views)) == 0
        p.write_many([1, 2, 3])
        with pytest.raises(Lapped) as caught:
            next(views)
        assert caught.value.seq == 0
        assert [int(v) for v in itertools.islice(views, 2)] == [2, 3]
        assert c.lost == 2


def test_a_view_of_an_evicted_reader() -> None:
    with (
        open_producer("x", NUMBER, capacity=2, evict_after=0.0) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        p.write(0)
        views = c.views(timeout=5)
        next(views)
        p.write_many([1, 2, 3])
        with pytest.raises(Evicted):
            next(views)
        p.write(4)
        assert int(next(views)) == 4


def test_views_outlive_what_they_came_from() -> None:
    p = open_producer("x", NUMBER, capacity=2)
    c = open_consumer("x", NUMBER)
    p.write(7)
    views = c.views(timeout=5)
    view = next(views)
    p.close()
    c.close()
    with pytest.raises(ClosedError):
        next(views)
    del p, c, views
    gc.collect()
    assert int(view) == 7


def test_views_need_a_place_for_each_slot() -> None:
    with open_producer("x", NUMBER, capacity=2), open_consumer("x", NUMBER) as c:
        with pytest.raises(InvalidArgument, match="one place for each slot"):
            c._native.views([], c._view, False, 0)
    assert _native.nothing() is None
