"""Batches, datasets, history, asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import (
    ChannelBusy,
    ChannelNotFound,
    ClosedError,
    Evicted,
    InvalidArgument,
    Lapped,
    SchemaMismatch,
    TimeoutExpired,
)

NUMBER = Schema.infer(dtype="i8", units="mV")


@pytest.fixture
def producer() -> Iterator[DataBlockProducer]:
    with open_producer("x", NUMBER, capacity=8) as p:
        yield p


def test_batches_come_in_order_and_end_with_the_stream(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many(list(range(6)))
        batches = c.batches(max_slots=4)
        first = next(batches)
        assert (first.data.tolist(), first.seq.tolist(), first.lost) == ([0, 1, 2, 3], [0, 1, 2, 3], 0)
        assert repr(first) == "Batch(x: seq 0-3, 4 of int64, lost=0)"
        producer.close()
        assert [b.data.tolist() for b in batches] == [[4, 5]]
        assert c.ended


def test_losses_are_exact(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many(list(range(30)))
        batch = next(c.batches())
        assert (batch.lost, batch.seq[0], len(batch)) == (22, 22, 8)
        assert c.lost == 22


def test_a_full_ring_of_an_idle_producer_loses_nothing(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many(list(range(8)))
        assert len(next(c.batches())) == 8
        assert c.lost == 0


def test_latest_skips_and_counts(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER, mode="latest") as c:
        producer.write_many([1, 2, 3])
        batch = next(c.batches(timeout=1))
        assert (batch.data.tolist(), batch.lost) == ([3], 2)
        with pytest.raises(TimeoutExpired, match="nothing new on 'x'"):
            next(c.batches(timeout=0.01))


def test_min_slots_waits(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write(1)
        with pytest.raises(TimeoutExpired, match="only 1 of 2 slots"):
            next(c.batches(min_slots=2, timeout=0.01))
        producer.write_many(list(range(7)))
        assert len(next(c.batches(min_slots=8, timeout=1))) == 8


@pytest.mark.parametrize(
    "options",
    [{"max_slots": 0}, {"min_slots": -1}, {"max_slots": 2, "min_slots": 3}, {"timeout": -1}, {"max_slots": "a"}],
)
def test_bad_iteration_options(producer: DataBlockProducer, options: dict) -> None:
    with open_consumer("x", NUMBER) as c, pytest.raises(InvalidArgument):
        c.batches(**options)


def test_a_batch_owns_its_memory(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many(list(range(8)))
        batch = next(c.batches())
        producer.write_many([-1] * 8)
    producer.close()
    gc.collect()
    assert batch.data.tolist() == list(range(8))
    batch.data[0] = 99  # and it is writable


def test_a_view_outlives_overwriting_closing_and_unlinking(producer: DataBlockProducer) -> None:
    c = open_consumer("x", NUMBER)
    producer.write(41)
    with c.slot(timeout=1) as s:
        view = s.array
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[...] = 1
    producer.write_many([42] * 8)
    producer.close()
    c.close()
    del c
    gc.collect()
    assert view == 42  # valid memory, newer contents


def test_a_slot_that_was_overwritten_while_open_is_lapped(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write(0)
        with pytest.raises(Lapped) as caught, c.slot(timeout=1) as s:
            assert s.valid
            producer.write_many(list(range(1, 10)))
            assert not s.valid
        assert caught.value.seq == 0
        assert c.lost == 1


def test_an_exception_inside_a_slot_releases_it(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        producer.write_many([1, 2])
        with pytest.raises(ZeroDivisionError), c.slot():
            raise ZeroDivisionError
        with c.slot() as s:
            assert s.array == 2
        with pytest.raises(TimeoutExpired):
            c.slot(timeout=0).__enter__()
        producer.close()
        with pytest.raises(EOFError):
            c.slot().__enter__()


def test_history_leaves_the_cursor_alone(producer: DataBlockProducer) -> None:
    with open_consumer("x", NUMBER) as c:
        assert len(c.snapshot()) == 0
        with pytest.raises(TimeoutExpired):
            c.latest(timeout=0.01)
        producer.write_many(list(range(20)))
        assert c.latest().data.tolist() == [19]
        assert c.snapshot(last=3).data.tolist() == [17, 18, 19]
        assert c.snapshot(last=100).data.tolist() == list(range(12, 20))
        assert c.snapshot(seconds=60).data.tolist() == list(range(12, 20))
        assert c.snapshot(seconds=0).data.tolist()[-1] == 19
        assert (c.cursor, c.lost) == (0, 0)


def test_seek(producer: DataBlockProducer) -> None:
    producer.write_many(list(range(5)))
    with open_consumer("x", NUMBER) as c, open_consumer("x", NUMBER, start="oldest") as oldest:
        c.seek(3)
        assert next(c.batches()).data.tolist() == [3, 4]
        assert next(oldest.batches()).data.tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(InvalidArgument, match="'newest', 'oldest' or a seq"):
            c.seek("middle")  # type: ignore[arg-type]
    with open_consumer("x", NUMBER, mode="lossless") as c, pytest.raises(InvalidArgument, match="cannot seek"):
        c.seek("newest")


def test_datasets_have_time_seq_units_and_notes() -> None:
    schema = Schema.infer(dtype=[("p", "f4"), ("v", "f8", (3,))], units={"p": "bar"}, attrs={"gain": 2})
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write_many([(k, (0, 0, k)) for k in range(4)])
        ds = next(c.datasets())
        assert set(ds.data_vars) == {"p", "v"}
        assert ds.p.attrs == {"units": "bar"}
        assert ds.v.dims == ("time", "v_0")
        assert ds.seq.values.tolist() == [0, 1, 2, 3]
        assert ds.time.dtype == "datetime64[ns]"
        assert ds.attrs == {"channel": "x", "gain": 2}
        assert c.snapshot().to_pandas().index.names == ["time", "v_0"]


def test_fields_with_the_name_of_a_coordinate_get_another_one() -> None:
    schema = Schema.infer(
        dtype=[("time", "f8"), ("seq", "u8"), ("seq_", "u8"), ("lead", "f4")], shape=(2,), dims=("lead",),
        units={"time": "s"},
    )  # fmt: skip
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write([(0.5, 7, 8, 1.0)] * 2)
        batch = next(c.batches())
        ds = batch.to_xarray()
        assert list(ds.data_vars) == ["time_", "seq__", "seq_", "lead_"]
        assert ds.time_.attrs == {"units": "s"}
        assert ds.seq__.values.tolist() == [[7, 7]]
        assert (ds.seq.values.tolist(), ds.time.values[0]) == ([0], batch.time[0])
        assert list(batch.to_pandas().columns) == ["time_", "seq__", "seq_", "lead_", "seq"]


def test_blocks_of_samples_get_a_time_for_each_sample() -> None:
    schema = Schema.infer(np.zeros((10, 2), "f4"), dims=("time", "channel"), sample_rate=1000, units="mV")
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write(np.ones((10, 2), "f4"))
        with p.slot() as s:  # the acquisition ended in the middle of a block
            s.array[:4] = 2
            s.nbytes = 4 * 8
        batch = next(c.batches(min_slots=2))
        ds = batch.to_xarray()
        assert ds.value.dims == ("time", "channel")
        assert ds.value.shape == (14, 2)
        assert ds.seq.values.tolist() == [0] * 10 + [1] * 4
        assert (np.diff(ds.time.values[:10]) == np.timedelta64(1, "ms")).all()
        assert ds.time.values[9] == batch.time[0]
        assert ds.time.values[13] == batch.time[1]


def test_blocks_written_together_follow_each_other_in_time() -> None:
    schema = Schema.infer(np.zeros((10, 2), "f4"), dims=("time", "channel"), sample_rate=1000, units="mV")
    with open_producer("x", schema, capacity=16) as p, open_consumer("x", schema) as c:
        p.write_many(np.zeros((12, 10, 2), "f4"))  # three runs of a quarter of the ring
        ds = next(c.batches(min_slots=12)).to_xarray()
        assert (np.diff(ds.time.values) == np.timedelta64(1, "ms")).all()
        p.write_many(np.zeros((12, 10, 2), "f4"))  # at once, so faster than 1 kHz: time does not run back
        stamps = next(c.batches(min_slots=12)).timestamp_ns
        assert (np.diff(stamps) >= 0).all()
        assert stamps[0] >= ds.time.values[-1].astype(int)


def test_time_may_be_the_second_axis() -> None:
    schema = Schema.infer(np.zeros((2, 5), "f4"), dims=("channel", "time"), sample_rate=10)
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write(np.arange(10, dtype="f4").reshape(2, 5))
        ds = next(c.datasets())
        assert ds.value.dims == ("time", "channel")
        assert ds.value.values[:, 1].tolist() == [5, 6, 7, 8, 9]


def test_nested_fields_become_dotted_variables() -> None:
    schema = Schema.infer(dtype=[("a", [("b", "f4"), ("c", "i2")]), ("d", "f8")])
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write({"a": {"b": 1.5, "c": 2}, "d": 3})
        assert sorted(next(c.datasets()).data_vars) == ["a.b", "a.c", "d"]


def test_asyncio_iterates_and_a_cancelled_wait_loses_nothing(
    producer: DataBlockProducer, wait_until: Callable[..., None]
) -> None:
    async def read(c: DataBlockConsumer) -> list[int]:
        waiting = asyncio.ensure_future(anext(c.batches()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        producer.write_many([1, 2, 3])
        producer.close()
        return [int(v) async for batch in c.batches(max_slots=2) for v in batch.data]

    before = set(threading.enumerate())  # zarr, which other tests use, has an event loop of its own for good
    with open_consumer("x", NUMBER) as c:
        assert asyncio.run(read(c)) == [1, 2, 3]
        with pytest.raises(TimeoutExpired), open_producer("y", NUMBER), open_consumer("y", NUMBER) as other:
            asyncio.run(anext(other.batches(timeout=0.02)))  # type: ignore[arg-type]
    ours = [t for t in threading.enumerate() if "asyncio" in t.name and t not in before]
    wait_until(lambda: not any(t.is_alive() for t in ours), what="the executor's end")


def test_a_closed_reader_makes_place_even_while_somebody_holds_its_views() -> None:
    with open_producer("x", NUMBER, lossless="single") as p, open_consumer("x", NUMBER, mode="lossless") as first:
        p.write(1)
        with first.slot() as s:
            view = s.array
        first.close()
        with open_consumer("x", NUMBER, mode="lossless") as second:
            p.write(2)
            assert next(second.batches(timeout=1)).data.tolist() == [2]
        assert view.base is not None


def test_an_evicted_reader_is_told_exactly_and_goes_on() -> None:
    with open_producer("x", NUMBER, capacity=4, evict_after=0.0) as p:
        with open_consumer("x", NUMBER, mode="lossless") as c:
            p.write_many(list(range(4)))
            next(c.batches(max_slots=1))
            p.write_many(list(range(4, 10)))
            with pytest.raises(Evicted) as caught:
                next(c.batches())
            assert caught.value.lost == 9
            p.write(10)
            batch = next(c.batches())
            assert (batch.data.tolist(), batch.lost, c.lost) == ([10], 0, 9)


def test_modes_and_policies() -> None:
    with open_producer("x", NUMBER, lossless=False), pytest.raises(InvalidArgument, match="LATEST_ONLY"):
        open_consumer("x", NUMBER, mode="lossless")
    with open_producer("x", NUMBER, lossless="single"), open_consumer("x", NUMBER, mode="lossless"):
        with pytest.raises(ChannelBusy, match="1 at most"):
            open_consumer("x", NUMBER, mode="lossless")
        open_consumer("x", NUMBER).close()
    with open_producer("x", NUMBER), pytest.raises(InvalidArgument, match="'stream', 'latest' or 'lossless'"):
        open_consumer("x", NUMBER, mode="fast")  # type: ignore[arg-type]


def test_wrong_channels_and_schemas(producer: DataBlockProducer) -> None:
    with pytest.raises(ChannelNotFound):
        open_consumer("y", NUMBER)
    with pytest.raises(SchemaMismatch):
        open_consumer("x", Schema.infer(dtype="f8"))
    with pytest.raises(ChannelBusy) as caught:
        open_producer("x", NUMBER)
    assert caught.value.pid > 0
    with open_consumer("x") as raw:  # without a schema: bytes
        producer.write(1)
        assert next(raw.batches()).data.shape == (1, 8)


def test_after_close(producer: DataBlockProducer) -> None:
    c = open_consumer("x", NUMBER)
    c.close()
    c.close()
    with pytest.raises(ClosedError):
        next(c.batches())
    assert "closed" in repr(c)
    producer.write(1)


def test_batches_can_be_read_into_one_array(producer: DataBlockProducer) -> None:
    out = np.zeros(4, "i8")
    with open_consumer("x", NUMBER, mode="lossless") as c:
        batches = c.batches(out=out)
        producer.write_many(list(range(6)))
        first = next(batches)
        assert first.data.tolist() == [0, 1, 2, 3]
        assert np.shares_memory(first.data, out)
        second = next(batches)
        assert (second.data.tolist(), second.seq.tolist(), out.tolist()) == ([4, 5], [4, 5], [4, 5, 2, 3])
        assert first.seq.tolist() == [0, 1, 2, 3]  # headers are always each batch's own


@pytest.mark.parametrize(
    "out",
    [
        np.zeros(4, "f8"),
        np.zeros((4, 2), "i8"),
        np.zeros(0, "i8"),
        np.zeros(8, "i8")[::2],
        np.frombuffer(bytes(32), "i8"),
        [0, 0, 0, 0],
    ],
    ids=["dtype", "shape", "empty", "strided", "read-only", "list"],
)
def test_what_batches_cannot_be_read_into_is_refused(producer: DataBlockProducer, out: np.ndarray) -> None:
    with open_consumer("x", NUMBER) as c, pytest.raises(InvalidArgument, match=r"out must be a writable C-contiguous"):
        c.batches(out=out)


@pytest.mark.parametrize("counts", [{"max_slots": 5}, {"min_slots": 5}], ids=["max", "min"])
def test_more_slots_than_there_is_room_for_are_refused(producer: DataBlockProducer, counts: dict[str, int]) -> None:
    with open_consumer("x", NUMBER) as c, pytest.raises(InvalidArgument, match="more than the 4 that `out` has room"):
        c.batches(out=np.zeros(4, "i8"), **counts)
