"""A Ctrl-C at any step of a ``with`` statement on a slot leaves no slot open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labhub import Schema
from labhub.datablock.config import ChecksumPolicy
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import ConcurrentUseError, TimeoutExpired
from tests.datablock.interrupts import STEPS, interrupt_at

NUMBER = Schema.infer(dtype="i8")


def in_place(p: Any, c: Any) -> None:
    with p.slot() as slot:
        slot.array[...] = 7


def whole(p: Any, c: Any) -> None:
    p.write(7)


def read(p: Any, c: Any) -> None:
    with c.slot(0.0) as slot:
        assert slot.array == 7


def failing(p: Any, c: Any) -> None:
    with p.slot(), c.slot(0.0):
        raise ZeroDivisionError


@pytest.mark.parametrize("checksum", [ChecksumPolicy.NONE, ChecksumPolicy.ENFORCED], ids=["plain", "checksums"])
@pytest.mark.parametrize("mode", ["lossless", "stream", "latest"])
@pytest.mark.parametrize("statement", [in_place, whole, read, failing])
def test_a_slot_is_closed_wherever_an_interrupt_comes(
    mode: Any, checksum: ChecksumPolicy, statement: Callable[[Any, Any], None]
) -> None:
    with (
        open_producer("x", NUMBER, capacity=4, lossless=True, checksum=checksum) as p,
        open_consumer("x", NUMBER, mode=mode) as c,
    ):
        for step in range(STEPS):
            p.write(7)
            interrupted = False
            try:
                with interrupt_at(step):
                    statement(p, c)
            except KeyboardInterrupt:
                interrupted = True
            except ZeroDivisionError:
                pass
            p.write(7)
            try:
                while True:
                    with c.slot(0.0) as slot:
                        assert slot.array == 7
            except TimeoutExpired:
                pass
            assert c.lag == 0
            if not interrupted:
                break
        assert 0 < step < STEPS - 1


@pytest.mark.parametrize("mode", ["lossless", "stream"])
def test_a_slot_that_was_not_handed_out_is_the_next_one_again(mode: Any) -> None:
    with open_producer("x", NUMBER, capacity=4, lossless=True) as p, open_consumer("x", NUMBER, mode=mode) as c:
        for step in range(STEPS):
            p.write(step)
            seen = []
            try:
                with interrupt_at(step), c.slot(0.0) as slot:
                    seen.append(int(slot.array))
                break
            except KeyboardInterrupt:
                if not seen:
                    with c.slot(0.0) as slot:
                        seen.append(int(slot.array))
            assert seen == [step]
            assert c.lag == 0
        assert 0 < step < STEPS - 1


def test_a_second_slot_leaves_the_first_one_open() -> None:
    with open_producer("x", NUMBER, capacity=4) as p, open_consumer("x", NUMBER, start="oldest") as c:
        with p.slot() as slot:
            with pytest.raises(ConcurrentUseError), p.slot():
                pass
            slot.array[...] = 1
        with c.slot(0.0) as slot:
            with pytest.raises(ConcurrentUseError), c.slot(0.0):
                pass
            assert slot.valid
            assert slot.array == 1
