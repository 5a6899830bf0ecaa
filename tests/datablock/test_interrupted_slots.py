"""A Ctrl-C at any step of a ``with`` statement on a slot leaves no slot open."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import labhub
from labhub import Schema
from labhub.datablock.config import ChecksumPolicy
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import ConcurrentUseError, TimeoutExpired

OURS = str(Path(labhub.__file__).parent / "datablock")
NUMBER = Schema.infer(dtype="i8")
STEPS = 400
"""More than any of these statements has."""


def returns(frame: FrameType) -> bool:
    """Whether the next instruction is a return: Python does not look for signals between that and the caller."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("RETURN")


@contextmanager
def interrupt_at(step: int) -> Iterator[None]:
    """Raise KeyboardInterrupt at that step of our Python code: at the entry of a function, or before an instruction."""
    left = step

    def trace(frame: FrameType, kind: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if kind == "call" or (kind == "opcode" and not returns(frame)):
            if not left:
                sys.settrace(None)
                raise KeyboardInterrupt
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


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
