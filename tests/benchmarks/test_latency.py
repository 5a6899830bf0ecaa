"""One round of ping-pong and of wake-ups, with labhub and a limit; `make bench` is the long one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="the intervals need scipy: pip install '.[plot]'")
pytest.importorskip("matplotlib", reason="the picture needs matplotlib: pip install '.[plot]'")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(shutil.which("g++") is None, reason="the limits are compiled: there is no g++")
def test_labhub_and_the_limits(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    what = ["--only", "ping-pong|wake-up at", "--with", "C futex|same ring, polling", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *what, "--result", str(result)],
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["failures"] == []
    sleeping, polling = {"labhub", "C futex"}, {"labhub, busy polling", "C++ on the same ring, polling"}
    assert set(found["runs"]["ping-pong, 64 B"]) == sleeping | polling
    assert set(found["runs"]["wake-up at 1 kHz"]) == sleeping
    for rows in found["runs"].values():
        for [figures] in rows.values():
            assert 0 < figures["p50_us"] <= figures["p99_us"]
    assert all(0 < figures["cpu_percent"] < 100 for [figures] in found["runs"]["wake-up at 1 kHz"].values())
