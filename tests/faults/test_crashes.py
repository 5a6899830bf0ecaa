"""SIGKILL at random moments: nothing torn, nothing unaccounted, nobody blocked for long."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from labhub import Schema, _native
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from tests.faults.children import WORDS, Child, is_whole, payload

FRAME = Schema.infer(dtype="u8", shape=(WORDS,))
CAPACITY = 4
HEADERS_OFFSET = 512 + 64 * 128  # layout.hpp: the slot headers follow the cursor lines


AHEAD = 8  # slots that a child can write without computing anything


def seq_words() -> list[int]:
    """Return the lock words of all slots, read from the segment's file."""
    data = np.memmap(Path(segment_directory()) / "x", "<u8", mode="r", offset=HEADERS_OFFSET, shape=(CAPACITY, 8))
    return [int(w) for w in data[:, 0]]


class Reader:
    """Reads what is there, checks every slot, and keeps the books."""

    def __init__(self, consumer: DataBlockConsumer) -> None:
        self.consumer = consumer
        self.received = 0
        self.began = self.expected = consumer.cursor

    def drain(self) -> None:
        while self.consumer.lag:
            batch = next(self.consumer.batches(timeout=5))
            assert batch.seq[0] == self.expected + batch.lost
            for seq, slot in zip(batch.seq, batch.data, strict=True):
                assert is_whole(slot, int(seq)), f"slot {seq} is torn"
            self.received += len(batch)
            self.expected = int(batch.seq[-1]) + 1


def write_for_ever(report: Callable[[int], None]) -> None:
    # Made before, so that almost all of the time from the report on is spent in the native copy.
    slots = [payload(k) for k in range(AHEAD)]
    with open_producer("x", FRAME, capacity=CAPACITY, lossless=False) as p:
        first = p.next_seq
        for slot in slots:
            slot += np.uint64(first)
        report(first)
        for k in itertools.count():
            p.write(slots[k % AHEAD])
            slots[k % AHEAD] += np.uint64(AHEAD)


def test_a_producer_killed_in_mid_write_leaves_nothing_torn(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(20260)
    rounds, odd, takeover_ms = 0, 0, []
    reader: Reader | None = None
    deadline = time.monotonic() + 60
    while rounds < 300 or odd < 50:
        assert time.monotonic() < deadline, f"{odd} odd seqs in {rounds} rounds"
        began = time.monotonic()
        child = Child(write_for_ever)
        start = child.receive()
        takeover_ms.append((time.monotonic() - began) * 1e3)
        if reader is None:
            reader = Reader(open_consumer("x", FRAME, start="oldest"))
        else:
            assert start >= reader.consumer.head or start >= reader.expected  # seq continues
        # Any moment of the copies that follow, not a point that the child chose.
        time.sleep(chance.uniform(0.0, 0.004))
        child.kill()
        rounds += 1
        odd += any(word % 2 for word in seq_words())
        reader.drain()
    assert reader is not None
    with open_producer("x", FRAME, capacity=CAPACITY, lossless=False) as last:
        assert last.took_over
        assert last.epoch == rounds + 1
        produced = last.next_seq
        reader.drain()
        assert reader.received + reader.consumer.lost == produced - reader.began
    reader.consumer.close()
    with capsys.disabled():
        print(
            f"\n{rounds} producers killed, {odd} in mid-write (odd seq); {produced} slots produced, "
            f"{reader.received} read and checked, none torn; fork to takeover p50 {np.median(takeover_ms):.1f} ms"
        )


NUMBER = Schema.infer(dtype="i8")


def hold_the_ring(report: Callable[[int], None]) -> None:
    with open_consumer("x", NUMBER, mode="lossless") as c:
        report(c.cursor)
        while True:  # reads a little, then nothing: the ring fills up behind it
            next(c.batches(max_slots=1))


def test_a_lossless_reader_killed_while_it_holds_the_ring_blocks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(38)
    blocked_ms = []
    with (
        open_producer("x", NUMBER, capacity=8, timeout=5.0, evict_after=None) as p,
        open_consumer("x", NUMBER, mode="lossless") as survivor,
    ):
        survived = 0
        for _ in range(300):
            child = Child(hold_the_ring)
            child.receive()
            for _ in range(chance.randrange(20)):
                p.write(p.next_seq)
                survived += len(next(survivor.batches()))
            child.kill()
            for _ in range(10):  # more than the ring holds: one of these finds it full
                began = time.monotonic()
                p.write(p.next_seq)
                blocked_ms.append((time.monotonic() - began) * 1e3)
                batch = next(survivor.batches())
                survived += len(batch)
                assert batch.data.tolist() == batch.seq.tolist()
        assert survived == p.next_seq
        stats = p.stats()
        held = [c for c in _native.probe(segment_directory(), "x")["consumers"] if not c["alive"] and not c["evicted"]]  # type: ignore[attr-defined]
    assert stats["timeouts"] == 0
    # A child that had read everything when it died is evicted by a later round, once the ring is full behind it.
    assert stats["evictions"] + len(held) >= 290
    assert max(blocked_ms) < 1000
    with capsys.disabled():
        print(
            f"\n300 lossless readers killed, {stats['evictions']} evicted; slowest write "
            f"{max(blocked_ms):.1f} ms, p99 {np.percentile(blocked_ms, 99):.2f} ms"
        )
