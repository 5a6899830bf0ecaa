"""The C++ example against an installed wheel: build it, run it, register it, read it, end it."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from labhub.hub import connect
from tests.cpp.conftest import ROOT, run

EXAMPLE = ROOT / "examples" / "cpp_producer"
CMAKE = (sys.executable, "-m", "cmake")  # that of the test extra, which need not be on the path
LOADAVG = "0.25 1.50 2.75 3/456 7890\n"
MEMINFO = "MemTotal:       16384000 kB\nMemFree:         1000000 kB\nMemAvailable:    8192123 kB\n"
EXPECTED = (0.25, 1.5, 2.75, 16384000, 8192123)


@pytest.fixture(scope="session")
def program(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the example with CMake, as its README says."""
    build = tmp_path_factory.mktemp("cpp_producer")
    told = run(installed, "-c", "import labhub; print(labhub.get_cmake_dir())", cwd=build)
    cmake_dir = told.stdout.strip()
    assert cmake_dir.startswith(str(installed.parents[1])), told.stderr
    configured = run(*CMAKE, "-S", EXAMPLE, "-B", build, f"-Dlabhub_DIR={cmake_dir}")
    assert configured.returncode == 0, configured.stdout + configured.stderr
    compiled = run(*CMAKE, "--build", build)
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    return build / "cpp_producer"


def test_headers_and_version_are_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    told = run(installed, "-c", "import labhub; print(labhub.get_include()); print(labhub.__version__)", cwd=tmp_path)
    include, version = told.stdout.split()
    ours = sorted(p.name for p in (ROOT / "native" / "include" / "labhub").glob("*.hpp"))
    assert sorted(p.name for p in Path(include, "labhub").iterdir()) == ours
    wanted = tmp_path / "CMakeLists.txt"
    cmake_dir = Path(include).with_name("cmake")
    for asked, found in ((version, True), ("99.0", False)):
        wanted.write_text(
            "cmake_minimum_required(VERSION 3.21)\nproject(x LANGUAGES CXX)\n"
            f"find_package(labhub {asked} CONFIG REQUIRED)\n"
        )
        configured = run(*CMAKE, "-S", tmp_path, "-B", tmp_path / asked, f"-Dlabhub_DIR={cmake_dir}")
        assert (configured.returncode == 0) == found, configured.stderr


def test_a_cpp_producer_is_a_channel_like_any_other(
    installed: Path, program: Path, tmp_path: Path, broker, wait_until
) -> None:
    (tmp_path / "loadavg").write_text(LOADAVG)
    (tmp_path / "meminfo").write_text(MEMINFO)
    with subprocess.Popen([program, "0.01", tmp_path], stdout=subprocess.PIPE, text=True) as producer:
        try:
            first, second = producer.stdout.readline(), producer.stdout.readline()
            assert re.fullmatch(r"writing /\S+/default/host\.load; tell the broker:\n", first)
            words = shlex.split(second)  # the command that it prints is the command that works
            assert words[:3] == ["labhub", "register", "host.load"]
            registered = run(installed, "-m", "labhub.cli", *words[1:], cwd=tmp_path)
            assert registered.returncode == 0, registered.stderr
            assert registered.stdout == (
                f"channel 'host.load' registered: pid {producer.pid}, 1024 slots of 40 bytes\n"
            )
            with connect() as hub, hub.consumer("host.load", start="oldest") as consumer:
                batch = next(consumer.batches(min_slots=5, timeout=10))
                assert {tuple(row) for row in batch.data.tolist()} == {EXPECTED}
                assert batch.to_xarray()["memory_total"].attrs == {"units": "kB"}
                (channel,) = hub.channels()
                assert (channel.producer_pid, channel.liveness) == (producer.pid, "alive")
                producer.send_signal(signal.SIGINT)
                assert producer.wait(10) == 0
                rest = [len(b) for b in consumer.batches(timeout=10)]  # what is left, and then the end
                assert sum(rest) + len(batch) == consumer.head
                wait_until(lambda: [c.liveness for c in hub.channels()] in ([], ["dead"]))
        finally:
            producer.kill()
