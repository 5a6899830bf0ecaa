"""A forked child: it may not use what its parent opened, and it does not keep the parent's locks alive."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import ForkedProcessError

NUMBER = Schema.infer(dtype="i8")


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its exit code, 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_use_in_the_child_is_refused_and_the_parent_is_unaffected() -> None:
    with open_producer("x", NUMBER) as p, open_consumer("x", NUMBER) as c:

        def work() -> None:
            for use in (lambda: p.write(1), lambda: next(c.batches()), lambda: p.write_many([1]), p.slot().__enter__):
                with pytest.raises(ForkedProcessError):
                    use()
            p.close()
            c.close()

        assert in_child(work) == 0
        p.write(7)
        assert next(c.batches(timeout=1)).data.tolist() == [7]
        assert not c.ended


def test_a_child_does_not_keep_a_dead_parent_alive() -> None:
    """Its copy of the parent's map must not count: the parent is killed, the child goes on as long as it likes."""
    told, tell = os.pipe()
    go_on, end = os.pipe()
    parent = os.fork()
    if parent == 0:
        held = open_producer("x", NUMBER), open_consumer("x", NUMBER, mode="lossless")
        os.close(end)
        if os.fork() == 0:
            os.write(tell, b"x")
            os.read(go_on, 1)  # until the test closes its end
            os._exit(0)
        signal.pause()
        del held
        os._exit(1)
    os.close(go_on)
    try:
        assert os.read(told, 1) == b"x"
        assert _native.probe(segment_directory(), "x")["alive"]
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        report = _native.probe(segment_directory(), "x")
        assert not report["alive"]
        assert [line["alive"] for line in report["consumers"]] == [False]  # type: ignore[attr-defined]
        with open_producer("x", NUMBER) as successor:
            assert successor.took_over
    finally:
        for descriptor in (end, told, tell):
            os.close(descriptor)


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


def test_a_child_does_not_keep_the_parents_locks_alive() -> None:
    read, write = os.pipe()
    p = open_producer("x", NUMBER)
    c = open_consumer("x", NUMBER, mode="lossless")
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)  # until the parent closes its end
        os._exit(0)
    os.close(read)
    try:
        report = _native.probe(segment_directory(), "x")
        assert report["alive"]
        assert [line["alive"] for line in report["consumers"]] == [True]  # type: ignore[attr-defined]
        c.close()
        assert open_consumer("x", NUMBER, mode="lossless").close() is None
        p.close()
        with open_producer("x", NUMBER) as again:
            assert not again.took_over
    finally:
        os.close(write)
        os.waitpid(pid, 0)
