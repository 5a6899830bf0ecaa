"""The native hot calls take as many instructions as is recorded, and one that grows does not pass."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "instructions.py"
RECORDED = SCRIPT.with_suffix(".json")

pytestmark = pytest.mark.skipif(
    not (shutil.which("valgrind") and shutil.which("g++")),
    reason="counting instructions needs valgrind and g++: apt-get install valgrind g++",
)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--only", "native", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def now(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Count, and record it; the file."""
    file = tmp_path_factory.mktemp("counts") / "now.json"
    done = run("--update", "--file", str(file))
    assert done.returncode == 0, done.stderr
    return file


def counts(file: Path) -> dict[str, float]:
    """What was counted in this environment, which `now` has alone."""
    (found,) = json.loads(file.read_text())["native"].values()
    return found


def test_nothing_has_grown() -> None:
    done = run("--check")
    if "not compared" in done.stdout:
        pytest.skip(done.stdout.splitlines()[0])  # another compiler than any that was recorded
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lossy_consumer_costs_the_producer_nothing(now) -> None:
    found = counts(now)
    assert found["write 64 B, 0 lossy consumers"] == found["write 64 B, 8 lossy consumers"] > 0


def test_a_call_that_grows_by_more_than_a_tenth_fails(now, tmp_path) -> None:
    found = counts(now)
    environment = next(iter(json.loads(now.read_text())["native"]))
    smaller = {call: count / 1.12 if call.startswith("write 64 B, 0") else count for call, count in found.items()}
    file = tmp_path / "before.json"
    file.write_text(json.dumps({"native": {environment: smaller}}))
    done = run("--check", "--file", str(file))
    assert done.returncode == 1
    assert "write 64 B, 0 lossy consumers" in done.stderr
    assert done.stderr.count("instructions instead of") == 1


def test_a_call_that_is_not_recorded_fails(now, tmp_path) -> None:
    recorded = json.loads(now.read_text())
    for found in recorded["native"].values():
        del found["claim and commit"]
    file = tmp_path / "before.json"
    file.write_text(json.dumps(recorded))
    done = run("--check", "--file", str(file))
    assert done.returncode == 1
    assert "claim and commit: not recorded" in done.stderr
