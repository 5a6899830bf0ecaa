"""What the hot calls cost, in instructions: the same on a busy machine and on an idle one, where times are not.

``python benchmarks/instructions.py --check`` fails when a call takes a tenth more instructions than `instructions.json`
says, ``--update`` writes that file; ``--only native`` leaves Python out. It needs g++ and valgrind
(``apt-get install g++ valgrind``).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from common import aligned, private_directories

import labhub
from labhub.datablock.location import segment_directory

HERE = Path(__file__).parent
RECORDED = HERE / "instructions.json"
TOLERANCE = 0.10
"""How much a call may grow. Between runs of the same code the counts differ by a hundredth at most."""

Counts = dict[str, dict[str, float]]
"""By group and call: instructions."""


def environment(group: str) -> str:
    """Say what the counts of a group depend on besides labhub; only counts of the same are compared."""
    if group == "native":
        return f"{platform.machine()}, g++ {subprocess.check_output(['g++', '-dumpversion'], text=True).strip()}"
    packages = ("numpy", "xarray", "ipython", "pyzmq") if group == "libraries" else ("numpy",)
    versions = [f"{name} {'.'.join(version(name).split('.')[:2])}" for name in packages]
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    python = "python {}.{}".format(*platform.python_version_tuple()) + (", optimised" if optimised else "")
    return ", ".join([platform.machine(), python, *versions])


def compiled(build: Path, output: str, *words: str) -> Path:
    """Compile one program or library, optimised as the package is."""
    flags = ["-std=c++17", "-O3", "-DNDEBUG", f"-I{labhub.get_include()}"]
    sources = [str(HERE / word) if word.endswith(".cpp") else word for word in words]
    subprocess.run(["g++", *flags, *sources, "-o", str(build / output)], check=True, timeout=300)
    return build / output


def marked(build: Path, *command: str | Path) -> dict[str, int]:
    """Run a program under callgrind; the instructions of its main thread up to each mark."""
    flags = ["--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", "--quiet"]
    out = build / "counts"
    # String hashes decide how often a dict collides.
    settings = {**os.environ, "PYTHONHASHSEED": "0", "IPYTHONDIR": str(build / "ipython")}
    done = subprocess.run(
        ["valgrind", *flags, f"--callgrind-out-file={out}", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=900,
        env=settings,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed under valgrind:\n{done.stderr}")
    marks = {}
    for path in build.glob("counts.*-01"):
        text = path.read_text()
        name, total = (re.search(pattern, text, re.M) for pattern in (r"Client Request: (.*)$", r"^totals: (\d+)$"))
        if name and total:
            marks[name[1]] = int(total[1])
        path.unlink()
    return marks


def per_call(marks: dict[str, int]) -> Counts:
    """Turn what was counted in two loops of a call, ``group/call/passes``, into what one pass takes."""
    loops: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for mark, total in marks.items():
        group, call, passes = mark.split("/")
        loops[group, call][int(passes)] = total
    counts: Counts = defaultdict(dict)
    for (group, call), totals in sorted(loops.items()):
        few, many = min(totals), max(totals)
        # A single count is of what happens once, as an import does.
        once = totals[many] / many if few == many else (totals[many] - totals[few]) / (many - few)
        counts[group][call] = round(once, 1)
    return dict(counts)


def measure(only: str) -> Counts:
    """Compile and count."""
    with private_directories(), tempfile.TemporaryDirectory() as name:
        os.makedirs(segment_directory(), 0o700)
        build = Path(name)
        native = compiled(build, "native", "instructions.cpp", "instructions_mark.cpp")
        marks = marked(build, native, segment_directory())
        if only == "all":
            library = compiled(build, "mark.so", "instructions_mark.cpp", "-shared", "-fPIC")
            marks |= marked(build, sys.executable, "-W", "ignore", HERE / "instructions_python.py", library)
    return per_call(marks)


def compare(counts: Counts, recorded: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Print a table; what grew, came or went, a line each."""
    wrong = []
    for group, found in counts.items():
        known = recorded.get(group, {}).get(environment(group))
        if known is None:
            print(f"{group}: not compared, as nothing is recorded for {environment(group)}")
            known = found
        rows = [(group, "recorded", "now", "change")]
        for call in sorted(known.keys() | found.keys()):
            before, now = known.get(call), found.get(call)
            if before is None or now is None:
                wrong.append(f"{call}: {'not recorded' if before is None else 'not counted any more'}")
                continue
            rows.append((call, f"{before:,.0f}", f"{now:,.0f}", f"{now / before - 1:+.1%}"))
            if now > before * (1 + TOLERANCE):
                wrong.append(f"{call}: {now:,.0f} instructions instead of {before:,.0f} ({now / before - 1:+.1%})")
        print(aligned(rows))
    return wrong


def main() -> int:
    """Count, then compare or record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("native", "all"), default="all", help="what to count")
    parser.add_argument("--file", type=Path, default=RECORDED, help="where the counts are kept")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail if a call has grown by more than a tenth")
    action.add_argument("--update", action="store_true", help="record what was counted, for this environment")
    options = parser.parse_args()
    recorded = json.loads(options.file.read_text()) if options.file.exists() else {}
    counts = measure(options.only)
    wrong = compare(counts, recorded)
    if options.update:
        for group, found in counts.items():
            recorded.setdefault(group, {})[environment(group)] = found
        options.file.write_text(json.dumps(recorded, indent=2, sort_keys=True) + "\n")
        return 0
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        print("if that is meant: python benchmarks/instructions.py --update, and commit the file", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
