"""47: Ctrl-C in the demo, at the moments at which it used to end without its table. More of them: tests/demo."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.demo.test_demo import INTERRUPTED
from tests.faults.rounds import Fault

MOMENTS = ("Display._say", "Display.__enter__")


@pytest.mark.fault(47, quick=len(MOMENTS), full=10 * len(MOMENTS), share=0.1)
def test_47_ctrl_c_at_the_first_line_of_the_demo(fault: Fault) -> None:
    for number in fault.each_round():
        moment = f"display.{MOMENTS[number % len(MOMENTS)]}"
        program = INTERRUPTED.format(f"{moment} = interrupting({moment}, 1)")
        done = subprocess.run(
            [sys.executable, "-c", program, "demo", "--seconds", "1"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        fault.happened()
        assert (done.returncode, done.stderr) == (0, "")
        assert "Every slot is accounted for" in done.stdout
