"""A Ctrl-C at any step of an iteration over a reader of the hub loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labhub.errors import TimeoutExpired
from tests.datablock.interrupts import STEPS, interrupt_at
from tests.datablock.test_interrupted_batches import N, batches, interrupted, rest


def filled(c: Any, seen: list[int]) -> None:
    for dataset in c.datasets(max_slots=4, timeout=0.0, gaps="nan"):
        assert dataset.attrs["lost"] == 0
        seen += dataset.seq.values.tolist()


def some(c: Any, seen: list[int]) -> None:
    for batch in c.batches(max_slots=4, timeout=0.0, total=N):
        seen += batch.headers["seq"].tolist()
    raise TimeoutExpired("the total was reached")


@pytest.mark.parametrize("statement", [batches, filled, some])
def test_nothing_is_lost_by_a_reader_of_the_hub(hub, statement: Callable[[Any, list[int]], None]) -> None:
    with hub.producer("x", dtype="i8", capacity=16, lossless=True) as p, hub.consumer("x", "lossless") as c:
        seen: list[int] = []
        for step in range(0, STEPS, 3 if statement is filled else 1):
            first = len(seen)
            p.write_many(range(N))
            was = interrupted(c, statement, step, seen)
            with pytest.raises(TimeoutExpired):
                rest(c, seen)
            assert seen[first:] == list(range(first, first + N))
            if not was:
                break
        assert 0 < step < STEPS - 1


def test_a_gap_is_filled_once_all_the_same(hub) -> None:
    with hub.producer("x", dtype="i8", capacity=4) as p, hub.consumer("x") as c:
        datasets = c.datasets(timeout=0.0, gaps="nan")
        p.write_many(range(2))
        assert next(datasets).seq.values.tolist() == [0, 1]
        for step in range(0, STEPS, 7):
            first = p.next_seq
            p.write_many(range(6))  # of which two are lost
            try:
                with interrupt_at(step):
                    found = next(datasets)
                break
            except KeyboardInterrupt:
                found = next(datasets)
            assert found.seq.values.tolist() == list(range(first, first + 6))
            assert np.isnan(found.value.values).tolist() == [True, True] + [False] * 4
        assert 0 < step < STEPS - 7
