"""`write_copies`: a ring that keeps another one's numbers, times and checksums, with holes where slots are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labhub import Schema
from labhub.datablock.batch import SLOT_HEADER
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import BackpressureTimeout, InvalidArgument

NUMBER = Schema.infer(dtype="i8")


def headers_of(seqs: list[int]) -> np.ndarray:
    headers = np.zeros(len(seqs), SLOT_HEADER)
    headers["seq"] = seqs
    headers["timestamp_ns"] = [1_000 + seq for seq in seqs]
    headers["nbytes"] = 8
    return headers


def copy(producer: DataBlockProducer, seqs: list[int]) -> None:
    assert producer.write_copies(np.array(seqs, "i8"), headers_of(seqs)) == len(seqs)


def test_numbers_times_and_lengths_are_kept() -> None:
    with open_producer("x", NUMBER, capacity=8, first_seq=100) as p, open_consumer("x", NUMBER, start="oldest") as c:
        assert p.next_seq == 100
        headers = headers_of([100, 101])
        headers["nbytes"][1] = 4
        p.write_copies(np.array([7, -1]), headers)
        batch = next(c.batches())
        assert batch.seq.tolist() == [100, 101]
        assert batch.timestamp_ns.tolist() == [1_100, 1_101]
        assert batch.nbytes.tolist() == [8, 4]
        assert batch.data.tolist() == [7, 0xFFFFFFFF]
        with pytest.raises(InvalidArgument, match="written already"):
            copy(p, [101])


def test_checksums_are_those_of_the_origin() -> None:
    with open_producer("x", NUMBER, checksum="enforced") as p, open_consumer("x", NUMBER) as c:
        p.write(5)
        origin = next(c.batches())
    with open_producer("y", NUMBER, checksum="enforced") as q, open_consumer("y", NUMBER) as c:
        q.write_copies(origin.data, origin.headers)
        assert next(c.batches()).data.tolist() == [5]


@pytest.mark.parametrize("mode", ["stream", "lossless"])
def test_a_hole_is_lost_and_nothing_else(mode) -> None:
    with open_producer("x", NUMBER, capacity=16) as p, open_consumer("x", NUMBER, mode=mode) as c:
        copy(p, [0, 1, 4, 5, 9])
        batches = [c.next_batch(16, 1, 0.0, False) for _ in range(3)]
        assert [(b.seq.tolist(), b.data.tolist(), b.lost) for b in batches] == [
            ([0, 1], [0, 1], 0),
            ([4, 5], [4, 5], 2),
            ([9], [9], 3),
        ]
        assert c.lost == 5
        assert c.snapshot().seq.tolist() == [0, 1, 4, 5, 9]
        assert c.latest().seq.tolist() == [9]


def test_slots_in_place_pass_over_holes() -> None:
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER) as c:
        copy(p, [3, 4, 6])
        seen = []
        for _ in range(3):
            with c.slot(timeout=0) as s:
                seen.append((s.seq, int(s.array)))
        assert seen == [(3, 3), (4, 4), (6, 6)]
        assert c.lost == 4


def test_more_holes_than_the_ring_holds() -> None:
    with open_producer("x", NUMBER, capacity=4, evict_after=None, timeout=0.0) as p:
        with open_consumer("x", NUMBER, mode="lossless") as c, open_consumer("x", NUMBER) as lossy:
            copy(p, [0, 1])
            for expected in ([0, 1], []):  # what the first holes would overwrite; then all the others
                with pytest.raises(BackpressureTimeout):
                    copy(p, [1_000_000])
                batch = c._read(4, None)
                assert ([] if batch is None else batch.seq.tolist()) == expected
                while c.lag:
                    c._read(4, None)
            copy(p, [1_000_000])
            batch = next(c.batches())
            assert (batch.seq.tolist(), batch.lost, c.lost) == ([1_000_000], 999_998, 999_998)
            assert next(lossy.batches()).seq.tolist() == [1_000_000]
            assert lossy.lost == 1_000_000


steps = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans()), max_size=30)


@pytest.mark.parametrize("mode", ["stream", "lossless"])
@given(steps=steps, capacity=st.integers(1, 9))
@settings(deadline=None)
def test_every_reader_keeps_its_books(mode, steps, capacity) -> None:
    """`received + lost == produced`, where a missing seq is lost, and a lossless reader loses nothing else."""
    with open_producer("x", NUMBER, capacity=capacity, evict_after=None, timeout=0.0) as p:
        with open_consumer("x", NUMBER, mode=mode) as c:
            sent, received, told = [], [], 0

            def read() -> None:
                nonlocal told
                while c.lag:
                    batch = c._read(c.capacity, None)
                    if batch is not None:
                        assert batch.data.tolist() == batch.seq.tolist()
                        assert batch.seq[0] == (received[-1] + 1 if received else 0) + batch.lost
                        received.extend(batch.seq.tolist())
                        told += batch.lost

            for gap, n, reads in steps:
                for seq in range(p.next_seq + gap, p.next_seq + gap + n):
                    while True:
                        try:
                            copy(p, [seq])
                            break
                        except BackpressureTimeout:
                            assert mode == "lossless"
                            read()
                    sent.append(seq)
                if reads:
                    read()
            read()
            assert len(received) + c.lost == c.cursor == p.next_seq
            assert told == c.lost
            if mode == "lossless":
                assert received == sent
            assert c.snapshot().seq.tolist() == [s for s in sent if s >= p.next_seq - capacity]
