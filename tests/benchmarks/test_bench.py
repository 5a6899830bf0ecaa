"""A short session with labhub and one peer, and what becomes of runs that go wrong; `make bench` is the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="the intervals need scipy: pip install '.[plot]'")
pytest.importorskip("matplotlib", reason="the picture needs matplotlib: pip install '.[plot]'")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def python(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the benchmarks on its path."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_session_with_one_peer(tmp_path: Path) -> None:
    result, chart = tmp_path / "result.json", tmp_path / "chart.png"
    what = ("--only", "64 KiB", "--with", "sched_yield", "--rounds", "1")
    done = python("-m", "bench", *what, "--result", str(result), "--chart", str(chart))
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["failures"] == []
    assert found["roles"].items() >= {"labhub": "labhub", "shared_memory, sched_yield": "peer"}.items()
    for name in ("64 KiB, one by one", "64 KiB, batches of 8"):
        for runs in found["runs"][name].values():
            assert [run["per_second"] > 0 for run in runs] == [True]
        assert name in done.stdout
    assert "≥ 0.8 × C++ on the same ring" in done.stdout
    assert chart.read_bytes().startswith(b"\x89PNG")

    page = tmp_path / "page.md"
    page.write_text("<!-- begin measurements -->\nold\n<!-- end measurements -->\nafter\n")
    assert python("-m", "bench.report", str(result), "--docs", str(page)).returncode == 0
    assert "old" not in page.read_text()
    assert "| 64 KiB, one by one | labhub |" in page.read_text()
    assert page.read_text().endswith("after\n")


FAULTY = """
import os
from bench import runner
from bench.contenders.handwritten import Polling
from bench.contenders.ring import Labhub
from bench.workload import Workload

class Dying(Labhub):
    name = "dying"
    def consume(self, workload, place, gate):
        os._exit(3)

class Skipping(Polling):
    name = "skipping"
    def read(self, r, workload, place):
        for k, slot in enumerate(super().read(r, workload, place)):
            if k != workload.amount // 2:
                yield slot

class Absent(Labhub):
    name = "absent"
    def missing(self):
        return "it is not installed"

if __name__ == "__main__":
    workload = Workload("w", "stream", 64, 1, 64)
    found = runner.session([Dying(), Skipping(), Absent(), Labhub()], [workload], 1)
    print(os.getpid())
    print(found.missing)
    print(found.failures)
    print({name: [run is not None for run in runs] for name, runs in found.runs["w"].items()})
"""


def test_what_fails_is_told_and_does_not_end_the_session(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    done = python(str(tmp_path / "faulty.py"))
    assert done.returncode == 0, done.stderr
    pid, missing, failures, runs = done.stdout.splitlines()
    assert missing == "{'absent': 'it is not installed'}"
    assert "w, dying: a process died" in failures
    assert "w, skipping: " in failures
    assert "WrongSlot" in failures
    assert runs == "{'labhub': [True]}"
    assert not [name for name in os.listdir("/dev/shm") if name.startswith(f"labhub-bench-{pid}-")]


VERDICTS = """
from bench.statistics import interval, verdict
def of(values, target, **how):
    return verdict(interval(values), target, **how)
print(of([2.0] * 20, 2), of([1.9] * 20, 2), of([1.0, 3.0] * 10, 1.5), of([2.0] * 19, 2), of([], 2), sep="|")
print(of([1.0] * 20, 1, at_most=True), of([1.1] * 20, 1, at_most=True), of([0.9, 1.3] * 10, 1, at_most=True), sep="|")
"""


def test_verdicts() -> None:
    done = python("-c", VERDICTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "holds|missed|undecided|too few rounds|not measured",
        "holds|missed|undecided",
    ]
