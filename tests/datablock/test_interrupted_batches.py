"""A Ctrl-C at any step of an iteration loses nothing: what was not handed out comes with the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labhub import Schema
from labhub.datablock.config import ChecksumPolicy
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import ChecksumError, TimeoutExpired
from tests.datablock.interrupts import STEPS, interrupt_at

NUMBER = Schema.infer(dtype="i8")
N = 6
"""Slots of each round."""


def batches(c: Any, seen: list[int]) -> None:
    for batch in c.batches(max_slots=4, timeout=0.0):
        seen += batch.headers["seq"].tolist()


def numbered(c: Any, seen: list[int]) -> None:
    for dataset in c.datasets(max_slots=4, timeout=0.0):
        seen += dataset.seq.values.tolist()


def single(c: Any, seen: list[int]) -> None:
    while (handle := c.acquire_consume_slot(0)) is not None:
        seen.append(handle.seq)
    raise TimeoutExpired("there is no more")


def rest(c: Any, seen: list[int]) -> None:
    for batch in c.batches(max_slots=1, timeout=0.0):
        assert len(batch) == 1
        seen += batch.headers["seq"].tolist()


def interrupted(c: Any, statement: Callable[[Any, list[int]], None], step: int, seen: list[int]) -> bool:
    """Whether it was, before it came to its end."""
    try:
        with interrupt_at(step):
            statement(c, seen)
    except KeyboardInterrupt:
        return True
    except TimeoutExpired:
        pass
    return False


@pytest.mark.parametrize("checksum", [ChecksumPolicy.NONE, ChecksumPolicy.ENFORCED], ids=["plain", "checksums"])
@pytest.mark.parametrize("statement", [batches, numbered, single])
def test_nothing_is_lost_and_nothing_comes_twice(
    checksum: ChecksumPolicy, statement: Callable[[Any, list[int]], None]
) -> None:
    with (
        open_producer("x", NUMBER, capacity=16, lossless=True, checksum=checksum) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        seen: list[int] = []
        for step in range(STEPS):
            p.write_many(range(N))
            was = interrupted(c, statement, step, seen)
            with pytest.raises(TimeoutExpired):
                rest(c, seen)
            assert seen == list(range(N * (step + 1)))
            if not was:
                break
        assert 0 < step < STEPS - 1
        assert c.lost == 0


def test_what_is_corrupt_is_told_once_all_the_same() -> None:
    with (
        open_producer("x", NUMBER, capacity=16, lossless=True, checksum=ChecksumPolicy.ENFORCED) as p,
        open_consumer("x", NUMBER, mode="lossless") as c,
    ):
        for step in range(STEPS):
            p.write_many(range(N))
            payload = p._native.mapping.payload()
            at = (p.next_seq - 3) % p.capacity * (len(payload) // p.capacity)
            payload[at] ^= 1
            seen: list[int] = []
            errors = 0
            done, left = False, step
            while not done:
                try:
                    with interrupt_at(left):
                        batches(c, seen)
                except KeyboardInterrupt:
                    left = 1 << 40
                except ChecksumError:
                    errors += 1
                    left = step % 60 if left == step else left
                except TimeoutExpired:
                    done = True
            first = N * step
            assert seen == [k for k in range(first, first + N) if k != first + 3]
            assert errors == 1
            assert c.corrupt == step + 1
            if step > 400:
                break
