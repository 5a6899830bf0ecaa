"""What the producer's look at all cursor lines costs, in instructions: deterministic, whatever else the machine does.

Run it with ``python benchmarks/scan.py [RESULT.json]``; it needs g++ and valgrind (``apt-get install g++ valgrind``).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from common import private_directories, report

import labhub
from labhub.datablock.location import segment_directory

FEW, MANY = 1000, 11000
HERE = Path(__file__).parent


def instructions(program: Path, consumers: int, calls: int) -> int:
    """Count the instructions of one run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [str(program), segment_directory(), str(consumers), str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    assert collected is not None, done.stderr
    return int(collected[1])


def main() -> None:
    """Compile, count and report."""
    with private_directories(), tempfile.TemporaryDirectory() as build:
        os.makedirs(segment_directory(), 0o700)
        program = Path(build, "scan")
        flags = ["-std=c++17", "-O3", "-DNDEBUG", f"-I{labhub.get_include()}"]
        subprocess.run(["g++", *flags, str(HERE / "scan.cpp"), "-o", str(program)], check=True, timeout=120)
        found = {}
        for consumers in (1, 8, 64):
            few, many = (instructions(program, consumers, calls) for calls in (FEW, MANY))
            found[consumers] = (many - few) / (MANY - FEW)
    rows = [("lossless consumers", "instructions for one scan"), *((str(k), f"{v:.0f}") for k, v in found.items())]
    report("scan", rows, {"instructions": found})


if __name__ == "__main__":
    main()
