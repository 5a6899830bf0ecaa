"""The unit under a real systemd: a user's manager that is started by hand."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub.errors import LabHubError
from labhub.hub import Hub, connect, running_broker, stop_broker
from tests.conftest import wait_until
from tests.metrics.conftest import ROOT, text

SYSTEMD = "/lib/systemd/systemd"
UNIT = "labhub-broker.service"
MANAGER = f"""
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
exec {SYSTEMD} --user
"""
"""It takes part only where the system was booted with systemd, of which that folder is the sign."""

Control = Callable[..., str]


def cgroups() -> list[Path]:
    """Where systemd keeps its groups: the unified hierarchy, or the two that it has beside the old ones."""
    root = Path("/sys/fs/cgroup")
    return [root] if (root / "cgroup.procs").exists() else [root / "systemd", root / "unified"]


@contextlib.contextmanager
def own_groups() -> Iterator[list[Path]]:
    """Groups for a manager of its own; a test without them is skipped."""
    groups = [root / f"labhub-test-{os.getpid()}" for root in cgroups()]
    try:
        for group in groups:
            group.mkdir()
    except OSError as error:
        pytest.skip(f"a manager needs a control group of its own: {error}")
    try:
        yield groups
    finally:
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                os.rmdir(folder)


@contextlib.contextmanager
def manager(environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a user's manager; at the end it stops its units."""
    with own_groups() as groups, log.open("wb") as output:
        enter = "".join(f"echo $$ >{shlex.quote(str(group))}/cgroup.procs\n" for group in groups)
        command = ["unshare", "--mount", "sh", "-ec", enter + MANAGER]
        with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
            try:
                yield
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                process.kill()  # harmless to one that has ended


@pytest.fixture
def control(private_dirs: Path, port: int, tmp_path: Path) -> Iterator[Control]:
    """The command systemctl, for a manager that has the unit."""
    if os.geteuid() or not (Path(SYSTEMD).exists() and shutil.which("systemctl")):
        pytest.skip("needs systemd, and root to start a manager")
    home, run = tmp_path / "home", private_dirs / "xdg"
    run.mkdir(mode=0o700)
    command, units = home / ".local" / "bin" / "labhub", home / ".config" / "systemd" / "user"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m labhub.cli "$@"\n')
    command.chmod(0o755)
    units.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "systemd" / UNIT, units)
    settings = private_dirs / "config" / "broker-default.toml"
    settings.write_text(f'[broker]\nlisten = "tcp://127.0.0.1:0"\n[metrics]\nport = {port}\n')
    environment = os.environ | {"HOME": str(home), "XDG_RUNTIME_DIR": str(run), "SYSTEMD_LOG_TARGET": "console"}

    def systemctl(*words: str) -> str:
        done = subprocess.run(
            ["systemctl", "--user", *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (done.stderr, (tmp_path / "log").read_text())
        return done.stdout.strip()

    with manager(environment, tmp_path / "log"):
        wait_until((run / "systemd" / "private").exists, 30, "the manager")
        yield systemctl


def state(control: Control) -> str:
    """Whether the unit is active."""
    return control("show", UNIT, "-p", "ActiveState", "--value")


def knows(hub: Hub, channel: str) -> bool:
    """Whether the broker answers, and has that channel."""
    with contextlib.suppress(LabHubError):
        return channel in [info.name for info in hub.channels()]
    return False


def test_the_unit_starts_reloads_restarts_and_stops_a_broker(control: Control, port: int) -> None:
    control("start", UNIT)
    with connect() as hub:  # at once: it is ready, or `start` would not have returned
        with hub.producer("x", like=1.0, capacity=8) as producer, hub.consumer("x") as consumer:
            producer.write(1.0)
            assert len(next(consumer.batches(timeout=10))) == 1
            assert 'labhub_producer_alive{channel="x"} 1.0' in text(port)
            control("reload", UNIT)  # of a file that has not changed, so that nothing else makes the broker read it
            wait_until(lambda: "labhub_settings_reads_total 1.0" in text(port))

            killed = running_broker().pid
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: knows(hub, "x"), 30, "the broker that systemd started anew")
            assert running_broker().pid != killed
            assert control("show", UNIT, "-p", "NRestarts", "--value") == "1"
            producer.write(2.0)
            assert len(next(consumer.batches(timeout=10))) == 1
    stop_broker()
    wait_until(lambda: state(control) == "inactive", 10, "the end of the unit")
    assert control("show", UNIT, "-p", "Result", "--value") == "success"
    control("start", UNIT)
    control("stop", UNIT)
    assert state(control) == "inactive"
