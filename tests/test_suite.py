"""The suite itself: every wait in it has an end, however it was started."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
WAITS = {"wait", "join", "communicate"}
RUNS = {f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output")}
WITHOUT = {
    "tests/bridge/relay.py:self._stop.wait()",
    "tests/cli/test_cli.py:terminal.wait()",
    "tests/faults/racer.py:os.wait()",
}
"""Those that take no deadline: of a coroutine, and for children that are known to end."""


def endless(path: Path) -> Iterator[str]:
    """The calls in a file that wait, and say nothing of for how long."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call):
            continue
        bare = isinstance(call.func, ast.Attribute) and call.func.attr in WAITS and not call.args and not call.keywords
        options = {keyword.arg for keyword in call.keywords}
        if bare or (ast.unparse(call.func) in RUNS and options.isdisjoint({"timeout", None})):
            yield f"{path.relative_to(TESTS.parent)}:{ast.unparse(call)}"


def test_no_test_waits_without_a_deadline() -> None:
    found = {call for path in sorted(TESTS.rglob("*.py")) for call in endless(path)}
    assert found == WITHOUT


def test_every_test_has_a_deadline(request: pytest.FixtureRequest) -> None:
    assert float(request.config.getini("timeout")) > 0


CHECK = """
import signal, subprocess, sys

def test_here():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

def test_children():
    program = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert shown.stdout == "True\\n"
"""


def test_a_suite_that_was_started_with_ctrl_c_ignored_hears_it(tmp_path: Path) -> None:
    """As below nohup, or in the background of a script."""
    (tmp_path / "test_sigint.py").write_text(CHECK)
    ignoring = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-c", "/dev/null"]
    done = subprocess.run(
        [sys.executable, "-c", ignoring, *words[1:], str(tmp_path / "test_sigint.py")],
        cwd=TESTS.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
