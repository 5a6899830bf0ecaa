"""A C++ producer gives a slot the time that it says, 0 included, or that of its publication if it says none."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from tests.cpp.conftest import ROOT, run

OWN = {1: 0, 2: -1, 4: 0, 6: 0, 8: 0}
"""By seq: the times that tests/cpp/times.cpp says."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++") or pytest.skip("a C++ compiler is needed: apt-get install g++")
    program = tmp_path_factory.mktemp("times") / "times"
    source = Path(__file__).with_name("times.cpp")
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread"]
    built = run(compiler, *flags, f"-I{ROOT / 'native' / 'include'}", source, "-o", program)
    assert built.returncode == 0, built.stderr
    return program


def test_a_call_without_a_time_is_now_and_zero_is_1970(program: Path) -> None:
    words = [program, segment_directory()]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer:
        try:
            assert producer.stdout is not None
            assert producer.stdout.readline() == "written\n"
            with open_consumer("x", Schema.infer(dtype="i8"), start="oldest") as c:
                times = next(c.batches(min_slots=22, timeout=5)).timestamp_ns
            producer.communicate("\n", timeout=10)
        finally:
            producer.kill()
    assert {seq: int(times[seq]) for seq in OWN} == OWN
    clock = np.delete(times, list(OWN))
    assert (np.diff(clock) >= 0).all()
    assert abs(clock - time.time_ns()).max() < 60e9
    steps = np.diff(times[10:])
    assert (steps == steps[0]).all()
    assert 0 <= steps[0] <= 1000
