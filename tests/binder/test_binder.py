"""The files for Binder: that its scripts can run, and that the start script hands over to the server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

BINDER = Path(__file__).parents[2] / "binder"


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", str(BINDER / name)], check=True)


def test_the_start_script_hands_over() -> None:
    done = subprocess.run([str(BINDER / "start"), "echo", "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b c\n"


def test_the_runtime_is_one_that_labhub_supports() -> None:
    found = re.fullmatch(r"python-3\.(\d+)\n", (BINDER / "runtime.txt").read_text())
    assert found is not None
    assert int(found[1]) >= 11
