"""What Tab offers, asked as the shell's completion script asks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from labhub.hub import connect


def complete(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    environment = os.environ | {
        "_LABHUB_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
    }
    command = [sys.executable, "-m", "labhub.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("command", ["info", "tail", "top", "channels"])
def test_names_of_live_channels(broker, command):
    with connect() as hub, hub.producer("pump.pressure", dtype="f8"), hub.producer("daq", dtype="f8"):
        assert complete(f"labhub {command} pu") == ["pump.pressure"]
        assert complete(f"labhub {command} ") == ["daq", "pump.pressure"]
        assert complete(f"labhub {command} --broker other ") == []


def test_names_of_brokers(broker):
    assert complete("labhub broker stop --name de") == ["default"]
    assert complete("labhub info --broker ") == ["default"]
    assert complete("labhub info --broker x") == []


def test_nothing_and_silence_without_a_broker(private_dirs):
    assert complete("labhub info p") == []
    (private_dirs / "run").chmod(0o755)
    assert complete("labhub info p") == complete("labhub info --broker d") == []
    (private_dirs / "run").chmod(0o700)


def test_silence_about_a_broker_that_does_not_answer(broker):
    os.kill(broker.pid, 19)
    try:
        assert complete("labhub info p") == []
    finally:
        os.kill(broker.pid, 18)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_that_a_shell_takes(shell, labhub):
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = labhub("--show-completion", shell, env=environment)
    assert shown.returncode == 0
    assert "_LABHUB_COMPLETE" in shown.stdout
