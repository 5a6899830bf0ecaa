"""Waiting for a thread, interrupted and repeated."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from pathlib import Path

import pytest

import labhub
from labhub.tasks import Task


def test_an_interrupted_wait_can_be_repeated() -> None:
    gate = threading.Event()
    task = Task(gate.wait, "labhub-test")
    task.start()
    press = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    with pytest.raises(KeyboardInterrupt):
        task.wait(60)
    press.join(60)
    assert task.is_alive()
    assert not task.wait(0.0)
    gate.set()
    assert task.wait(10)
    assert not task.is_alive()
    assert task.wait(60)


def test_a_forked_child_waits_for_nobody() -> None:
    gate = threading.Event()
    task = Task(gate.wait, "labhub-test")
    task.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if task.wait(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    task.wait(60)


def fails() -> None:
    raise KeyError("pump")


def test_what_ends_a_thread_is_kept_and_logged_once_and_not_printed(failures, capfd) -> None:
    heard = []
    task = Task(fails, "labhub-test", heard.append)
    task.start()
    assert task.wait(10)
    assert isinstance(task.error, KeyError)
    assert heard == [task.error]
    assert failures == ["thread_failed: labhub-test: KeyError: 'pump'"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("level", "traced"), [(logging.DEBUG, True), (logging.INFO, False)])
def test_the_event_has_facts_and_a_traceback_only_where_debug_is_logged(failures, caplog, level, traced) -> None:
    with caplog.at_level(level, "labhub"):
        task = Task(fails, "labhub-test")
        task.start()
        task.wait(60)
    (record,) = caplog.records
    assert record.event == "thread_failed"
    assert record.fields == {"thread": "labhub-test", "kind": "KeyError", "reason": "KeyError: 'pump'"}
    assert (record.exc_info is not None) is traced


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
def test_any_kind_of_end_is_kept(failures, kind) -> None:
    error = kind()

    def ends() -> None:
        raise error

    task = Task(ends, "labhub-test")
    task.start()
    assert task.wait(10)
    assert task.error is error
    assert len(failures) == 1


def test_a_thread_that_comes_to_its_end_has_no_error() -> None:
    task = Task(lambda: None, "labhub-test")
    task.start()
    assert task.wait(10)
    assert task.error is None


def test_labhub_makes_no_other_threads() -> None:
    """A bare `threading.Thread` would end in silence, on standard error."""
    root = Path(labhub.__file__).parent
    made = [
        f"{path.relative_to(root)}:{number}"
        for path in root.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\b(Thread|Timer)\(", line) and path.name != "tasks.py"
    ]
    assert made == []
