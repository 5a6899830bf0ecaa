"""Ctrl-C in the demo: one behaviour from its first line on."""

from __future__ import annotations

import pytest

from tests.demo.running import demos, is_empty, rows


@pytest.fixture
def start_demo(private_dirs, monkeypatch):
    """Start `labhub demo`, with its temporary files in a place of its own."""
    yield from demos(private_dirs, monkeypatch)


INTERRUPTED = """
import os, signal
from labhub.cli import main
from labhub.cli.demo import display, director

def interrupting(function, at):
    calls = []
    def call(*arguments):
        calls.append(arguments)
        result = function(*arguments)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return result
    return call

{}
main()
"""

MOMENTS = {
    "first line": "display.Display._say = interrupting(display.Display._say, 1)",
    "before the loop": "display.Display.__enter__ = interrupting(display.Display.__enter__, 1)",
    "after the loop": "director.Director.watch = interrupting(director.Director.watch, 1)",
    "at its end": "director.Director.finish = interrupting(director.Director.finish, 1)",
    "at the table": "display.counts = interrupting(display.counts, 1)",
}


@pytest.mark.fault(47, share=0.1)
@pytest.mark.parametrize("moment", MOMENTS)
def test_47_ctrl_c_in_the_demo_means_its_table(fault, start_demo, private_dirs, moment):
    for _ in fault.each_round():
        demo = start_demo(1, program=INTERRUPTED.format(MOMENTS[moment]))
        text, errors = demo.communicate(timeout=60)
        fault.happened()
        assert (demo.returncode, errors) == (0, ""), text + errors
        assert "slow display" in rows(text)
        assert "Every slot is accounted for" in text
        assert is_empty(private_dirs / "tmp")
        assert is_empty(private_dirs / "shm")
