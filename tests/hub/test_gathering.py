"""Batches larger than the ring, through a reader of the hub."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

from labhub.errors import InvalidArgument, TimeoutExpired
from tests.datablock.interrupts import STEPS, interrupt_at


def writing(producer: Any, records: list[Any]) -> threading.Thread:
    """Write records one by one in a thread."""
    thread = threading.Thread(target=lambda: [producer.write(record) for record in records])
    thread.start()
    return thread


def test_a_hundred_frames_of_a_camera_are_a_hundred(hub):
    with hub.producer("camera", dtype="u2", shape=(480, 640), evict_after=None) as camera:
        assert camera.capacity == 13
        with hub.consumer("camera", mode="lossless") as reader:
            thread = writing(camera, [np.full((480, 640), k, "u2") for k in range(212)])
            batches = reader.batches(min_slots=100, max_slots=100, timeout=20)
            for first in (0, 100):
                batch = next(batches)
                assert batch.data.shape == (100, 480, 640)
                assert batch.data[:, 0, 0].tolist() == batch.data[:, -1, -1].tolist() == list(range(first, first + 100))
                assert batch.seq.tolist() == list(range(first, first + 100))
            thread.join(60)
            with pytest.raises(TimeoutExpired, match="only 12 of 100 slots, which wait for the next call, on 'camera'"):
                next(reader.batches(min_slots=100, max_slots=100, timeout=0.25))
            assert len(next(reader.batches(min_slots=12, timeout=1))) == 12
            assert reader.lost == 0


def test_a_total_is_kept_and_its_rest_is_a_shorter_batch(hub):
    with hub.producer("x", like=0, capacity=4, evict_after=None) as p, hub.consumer("x", "lossless") as c:
        thread = writing(p, list(range(30)))
        batches = c.batches(min_slots=10, max_slots=10, total=25, timeout=10)
        assert [b.data.tolist() for b in batches] == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
        assert next(c.batches(min_slots=5, timeout=10)).data.tolist() == list(range(25, 30))
        thread.join(60)


def test_gathered_datasets_have_their_gaps_filled(hub):
    with hub.producer("x", like=0, capacity=8) as p, hub.consumer("x") as c:
        datasets = c.datasets(min_slots=12, max_slots=12, gaps="nan", timeout=0.0)
        p.write_many(range(8))
        with pytest.raises(TimeoutExpired):
            next(datasets)
        p.write_many(range(8, 24))  # 8 of which are lost
        first = next(datasets)
        p.write_many(range(24, 28))
        second = next(datasets)
        assert (first.seq.values.tolist(), first.attrs["lost"]) == (list(range(8)), 0)
        assert (second.seq.values.tolist(), second.attrs["lost"]) == (list(range(8, 28)), 8)
        assert np.isnan(second.value.values).tolist() == [True] * 8 + [False] * 12


@pytest.mark.parametrize("capacity", [4, 64])
def test_a_batch_ends_where_the_channel_was_made_anew(hub, capacity):
    with hub.producer("x", like=0, capacity=8) as p:
        c = hub.consumer("x", "lossless", follow=True)
        batches = c.batches(min_slots=20, max_slots=20, timeout=10)
        p.write_many(range(7))
    with hub.producer("x", like=0, capacity=capacity, evict_after=None) as p:
        first = next(batches)
        assert (first.data.tolist(), first.epoch) == (list(range(7)), 1)
        found: list[Any] = []
        reader = threading.Thread(target=lambda: found.append(next(batches)))
        reader.start()  # attaches to the new one
        thread = threading.Thread(target=lambda: [p.write(k) for k in range(40)])
        while c.epoch == 1:
            reader.join(0.01)
        thread.start()
        reader.join(10)
        assert (found[0].epoch, len(found[0]), c.lost) == (2, 20, 0)
        c.close()
        thread.join(10)


def test_a_reader_that_gathers_can_be_closed(hub, wait_until):
    with hub.producer("x", like=0, capacity=8) as p:
        c = hub.consumer("x")
        thread = threading.Thread(target=lambda: list(c.batches(min_slots=100)))
        thread.start()
        p.write_many(range(8))
        wait_until(lambda: c.lag == 0, what="its reading")
        c.close()
        thread.join(10)
        assert not thread.is_alive()


def test_async_for_gathers(hub):
    async def read(c):
        return [batch.data.tolist() async for batch in c.batches(min_slots=10, max_slots=10, total=20, timeout=10)]

    with hub.producer("x", like=0, capacity=4, evict_after=None) as p, hub.consumer("x", "lossless") as c:
        thread = writing(p, list(range(20)))
        assert asyncio.run(read(c)) == [list(range(10)), list(range(10, 20))]
        thread.join(60)


def test_what_the_newest_slot_cannot_wait_for_is_refused(hub):
    with hub.producer("x", like=0, capacity=8), hub.consumer("x", "latest") as c:
        with pytest.raises(InvalidArgument, match="min_slots=9 is more than the 8 slots of the ring"):
            c.batches(min_slots=9)
        with pytest.raises(InvalidArgument, match="min_slots=9"):
            c.datasets(min_slots=9)


def gathered(c: Any, seen: list[int]) -> None:
    for batch in c.batches(max_slots=9, min_slots=9, timeout=0.0, total=9):
        seen += batch.headers["seq"].tolist()
    raise TimeoutExpired("the total was reached")


def test_a_ctrl_c_anywhere_loses_nothing(hub):
    with hub.producer("x", dtype="i8", capacity=16) as p, hub.consumer("x", "lossless") as c:
        seen: list[int] = []
        for step in range(STEPS):
            p.write_many(range(6))
            was = True
            try:
                with interrupt_at(step):
                    gathered(c, seen)
            except KeyboardInterrupt:
                pass
            except TimeoutExpired:
                was = False
            for _ in range(2):
                with pytest.raises(TimeoutExpired):
                    gathered(c, seen)
            assert seen == list(range(len(seen)))
            if not was and step > 300:
                break
        with pytest.raises(TimeoutExpired):
            for batch in c.batches(timeout=0.0):
                seen += batch.seq.tolist()
        assert seen == list(range(p.next_seq))
        assert c.lost == 0


def test_an_asynchronous_wait_that_took_too_long_says_how_long(hub):
    async def first(timeout):
        with hub.consumer("slow") as c:
            await anext(c.batches(timeout=timeout))

    with hub.producer("slow", dtype="f8"):
        for timeout in (0.3, 0.02):
            with pytest.raises(TimeoutExpired, match=f"within {timeout} s$"):
                asyncio.run(first(timeout))
