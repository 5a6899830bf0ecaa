"""`write_copies`: a ring that keeps another one's numbers, times and checksums, with holes where slots are missing."""

from __future__ import annotations

import faulthandler
import mmap
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labhub import Schema, diagnose
from labhub.datablock.batch import SLOT_HEADER
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import BackpressureTimeout, InvalidArgument, TimeoutExpired
from labhub.testing.harness import Remote

NUMBER = Schema.infer(dtype="i8")
PAGES = Schema.infer(dtype="u8", shape=(1024,))  # two pages a slot


def headers_of(seqs: list[int], nbytes: int = 8) -> np.ndarray:
    headers = np.zeros(len(seqs), SLOT_HEADER)
    headers["seq"] = seqs
    headers["timestamp_ns"] = [1_000 + seq for seq in seqs]
    headers["nbytes"] = nbytes
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


class DyingCopier:
    """A producer that is killed in the middle of a slot: its source is a file that has become shorter."""

    def __init__(self) -> None:
        faulthandler.disable()
        self._producer = open_producer("x", PAGES, capacity=4)

    def copy(self, seqs: list[int]) -> None:
        rows = np.repeat(np.array(seqs, "u8")[:, np.newaxis], PAGES.shape[0], axis=1)
        self._producer.write_copies(rows, headers_of(seqs, PAGES.slot_nbytes))

    def die(self, seq: int) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(PAGES.slot_nbytes)
            source = np.frombuffer(mmap.mmap(file.fileno(), PAGES.slot_nbytes), "u8")
            source[:] = seq
            file.truncate(PAGES.slot_nbytes // 2)
            self._producer.write_copies(source, headers_of([seq], PAGES.slot_nbytes))


@pytest.mark.parametrize("holes", [0, 1, 2, 3])
def test_a_slot_that_is_half_overwritten_behind_holes_is_not_read(holes) -> None:
    """Holes take the place of older slots as well: what is overwritten has no gaps, which reading relies on."""
    with Remote(DyingCopier) as copier:
        copier.call("copy", [0, 1, 2, 3])
        with pytest.raises(EOFError):
            copier.call("die", 4 + holes)
    with open_consumer("x", PAGES, start="oldest") as c:
        batch = c._read(4, None)
        seqs = [] if batch is None else batch.seq.tolist()
        assert seqs == list(range(holes + 1, 4))
        assert batch is None or [set(row) for row in batch.data.tolist()] == [{seq} for seq in seqs]
        assert c.lost == holes + 1
        assert c.snapshot().seq.tolist() == seqs
        assert diagnose("x").slots["writing"] == holes + 1
        with open_producer("x", PAGES, capacity=4) as successor:
            assert successor.next_seq == 4
            successor.write(np.full(PAGES.shape, 4, "u8"))
            assert next(c.batches()).data.tolist() == [[4] * 1024]


def test_history_passes_over_holes() -> None:
    with open_producer("x", NUMBER, capacity=8) as p, open_consumer("x", NUMBER) as c:
        seqs = [0, 1, 2, 3, 7]
        headers = headers_of(seqs)
        headers["timestamp_ns"] = [10**9 * (seq + 1) for seq in seqs]
        p.write_copies(np.array(seqs), headers)
        assert diagnose("x").slots == {"empty": 0, "committed": 5, "holes": 3, "writing": 0, "uncommitted": 0}
        for seconds in range(9):
            expected = [seq for seq in seqs if seq >= 7 - seconds]
            assert c.snapshot(seconds=seconds).seq.tolist() == expected


def test_the_newest_slot_is_no_hole() -> None:
    with (
        open_producer("x", NUMBER, capacity=4, evict_after=None, timeout=0.0) as p,
        open_consumer("x", NUMBER, mode="lossless") as reader,
        open_consumer("x", NUMBER) as c,
    ):
        copy(p, [0, 1, 2, 3])
        assert reader._read(2, None) is not None
        with pytest.raises(BackpressureTimeout):
            copy(p, [9])
        assert (p.next_seq, c.latest(timeout=0).seq.tolist()) == (6, [3])
        assert c.snapshot(seconds=1).seq.tolist() == [2, 3]
        while reader.lag:
            reader._read(4, None)
        with pytest.raises(BackpressureTimeout):
            copy(p, [13])
        with pytest.raises(TimeoutExpired):
            c.latest(timeout=0)


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
