"""Waiting for a thread, interrupted and repeated."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from labhub.tasks import Task


def test_an_interrupted_wait_can_be_repeated() -> None:
    gate = threading.Event()
    task = Task(gate.wait, "labhub-test")
    task.start()
    press = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    with pytest.raises(KeyboardInterrupt):
        task.wait()
    press.join()
    assert task.is_alive()
    assert not task.wait(0.0)
    gate.set()
    assert task.wait(10)
    assert not task.is_alive()
    assert task.wait()


def test_a_forked_child_waits_for_nobody() -> None:
    gate = threading.Event()
    task = Task(gate.wait, "labhub-test")
    task.start()
    child = os.fork()
    if child == 0:
        os._exit(0 if task.wait(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    task.wait()
