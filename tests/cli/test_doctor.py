"""The doctor as a command; what it finds is tested in tests/doctor."""

from __future__ import annotations

import json
import os
import signal

from labhub import runtime


def test_healthy_is_0_and_says_what_was_looked_at(labhub):
    shown = labhub("doctor")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.endswith("healthy\n")
    for check in ("segment directory", "runtime directory", "data directory", "shared memory", "limits", "keys"):
        assert f"ok      {check}: " in shown.stdout
    assert "\x1b" not in shown.stdout


def test_a_killed_broker_is_1_until_it_is_fixed(broker, labhub, wait_until):
    os.kill(broker.pid, signal.SIGKILL)
    wait_until(lambda: not broker.alive)
    path = runtime.path_of("default")
    shown = labhub("doctor")
    assert shown.returncode == 1
    assert f"problem connection files: {path}: the broker that wrote it, process {broker.pid}, is dead" in shown.stdout
    assert "        fix: labhub doctor --fix\n" in shown.stdout
    assert shown.stdout.endswith("1 problem\n")
    (found,) = [f for f in json.loads(labhub("doctor", "--json").stdout) if f["severity"] != "ok"]
    assert set(found) == {"check", "severity", "subject", "what", "fix", "removable", "outcome"}
    assert (found["removable"], found["outcome"]) == (True, "")
    fixed = labhub("doctor", "--fix")
    assert (fixed.returncode, fixed.stderr) == (0, "")
    assert f"removed connection files: {path}" in fixed.stdout
    assert not path.exists()
    assert labhub("doctor", "--fix").stdout.endswith("healthy\n")


def test_help_says_what_the_exit_codes_mean(labhub):
    text = " ".join(labhub("doctor", "--help").stdout.split())
    assert "Exit codes: 0 healthy, 1 problems found" in text
    assert "Example: labhub doctor --fix" in text
