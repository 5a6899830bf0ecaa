"""Run every check of `verification`, and every mutant of each, and print what came out.

``python -m verification.run [--require-all] [--only NAME ...]``. A mutant is the code or a model with one fault sown; a
check that does not notice it proves nothing, so a mutant that survives fails the run. What needs a tool that is not
installed is skipped with one line, or is an error with ``--require-all``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from verification import frames, mutants
from verification.mutants import HEADERS, Mutant

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "verification"
TIMEOUT = 240.0  # of one program (in seconds), on a machine that does other things as well
WARNINGS = ["-std=c++17", "-Wall", "-Wextra"]


class CheckError(Exception):
    """A check could not be run: a compiler failed, a quotation is stale, a program hung."""


@dataclass(frozen=True)
class Verdict:
    """Whether the claim held, how much was looked at (states or iterations), and the end of the program's output."""

    holds: bool
    size: int
    output: str


@dataclass
class Check:
    """A claim, how to test it, and how to test the test."""

    name: str
    what: str
    base: Callable[[], Verdict]
    mutants: dict[str, Callable[[], Verdict]] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------------- programs


def execute(command: list[str | Path], cwd: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run a program; its exit code (negative: the signal) and what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckError(f"{command[0]} did not end within {TIMEOUT:.0f} s") from None
    return done.returncode, done.stdout.decode(errors="replace")


def must(command: list[str | Path], cwd: Path = ROOT) -> None:
    """Run a program that has to succeed, like a compiler.

    Raises
    ------
    CheckError
        If it does not.
    """
    code, output = execute(command, cwd)
    if code:
        raise CheckError(f"{' '.join(map(str, command))}\n{output[-2000:]}")


def judge(code: int, output: str) -> Verdict:
    """Read the outcome of one of our own programs: its last line says HOLDS and iterations=N, or it failed."""
    found = re.search(r"HOLDS.* ?iterations=(\d+)", output)
    return Verdict(code == 0 and found is not None, int(found[1]) if found else 0, output[-1500:])


class Builder:
    """Compiles each program once, however many mutants run it."""

    def __init__(self) -> None:
        self._locks: dict[Path, threading.Lock] = {}
        self._built: set[Path] = set()
        self._guard = threading.Lock()

    def __call__(self, program: Path, command: list[str | Path]) -> Path:
        """Run `command` with ``-o program``, unless that was done before; return `program`."""
        with self._guard:
            lock = self._locks.setdefault(program, threading.Lock())
        with lock:
            if program not in self._built:
                program.parent.mkdir(parents=True, exist_ok=True)
                must([*command, "-o", program])
                self._built.add(program)
        return program


build = Builder()

# --------------------------------------------------------------------------------------------------------------- checks


def check_quotations() -> Verdict:
    """Find each line of the code that a model says it mirrors."""
    stale, count = [], 0
    for model in sorted([*(HERE / "spin").glob("*.pml"), *(HERE / "relacy").glob("*.?pp")]):
        for file, quoted in re.findall(r"mirrors (\w+\.hpp): (.*?)\s*(?:\*/|$)", model.read_text(), re.MULTILINE):
            count += 1
            if quoted not in (HEADERS / "labhub" / file).read_text():
                stale.append(f"{model.name} quotes {file}: {quoted}")
    return Verdict(not stale, count, "\n".join(stale))


def run_spin(model: Path, mutation: str) -> Verdict:
    """Search the whole state space of a model for failed assertions and states in which somebody waits for ever."""
    work = BUILD / "spin" / model.stem / mutation
    work.mkdir(parents=True, exist_ok=True)
    must(["spin", f"-D{mutation}", "-a", model], work)
    must(["gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=2000", "-o", "pan", "pan.c"], work)
    _, output = execute([work / "pan", "-m200000"], work)
    states = re.search(r"(\d+) states, stored", output)
    found = re.search(r"errors: (\d+)", output)
    if not (states and found) or (found[1] == "0" and re.search("not completed|max search depth", output)):
        raise CheckError(f"{model.name} {mutation}: the search is not complete\n{output[-1500:]}")
    return Verdict(found[1] == "0", int(states[1]), output[-1500:])


def spin_checks() -> Iterator[Check]:
    """One check for each model; its mutants are the MUT_ macros that it names."""
    for model in sorted((HERE / "spin").glob("*.pml")):
        text = model.read_text()
        yield Check(
            f"spin/{model.stem}",
            text.splitlines()[0].strip("/* ").partition(":")[0].rstrip("."),
            partial(run_spin, model, "BASE"),
            {m: partial(run_spin, model, m) for m in sorted(set(re.findall(r"\bMUT_\w+", text)))},
        )


def run_relacy(model: Path, mutation: str, iterations: int) -> Verdict:
    """Simulate a model under random schedules and memory orders."""
    program = build(BUILD / "relacy" / model.stem, ["g++", "-std=c++17", "-O1", "-w", model])
    return judge(*execute([program, str(iterations), mutation]))


def relacy_checks() -> Iterator[Check]:
    """One check for each model; its mutants are what it asks `mutated` for."""
    for model in sorted((HERE / "relacy").glob("*.cpp")):
        text = model.read_text()
        yield Check(
            f"relacy/{model.stem}",
            text.splitlines()[0].strip("/ ").partition(":")[0].rstrip("."),
            partial(run_relacy, model, "", 1_000_000),
            {m: partial(run_relacy, model, m, 300_000) for m in sorted(set(re.findall(r'mutated\("(\w+)"\)', text)))},
        )


SANITIZERS = {
    "tsan": ["-fsanitize=thread", "-g"],
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"],
    "plain": [],
}


def run_native(clang: str, source: str, sanitizer: str, arguments: list[str], mutant: Mutant | None = None) -> Verdict:
    """Build a native check against the real headers or a mutated copy, and run it in a directory of its own."""
    name = f"{source}-{sanitizer}" + (f"-{mutant.name}" if mutant else "")
    include = mutant.sow(BUILD / "native" / f"{name}-include") if mutant else HEADERS
    program = build(
        BUILD / "native" / name,
        [
            clang,
            *WARNINGS,
            "-O1",
            *SANITIZERS[sanitizer],
            "-pthread",
            f"-I{include}",
            HERE / "native" / f"{source}.cpp",
        ],
    )
    directory = tempfile.mkdtemp(prefix="labhub-verify-", dir="/dev/shm")
    try:
        code, output = execute(
            [program, directory, *arguments],
            TSAN_OPTIONS="halt_on_error=1",
            ASAN_OPTIONS="quarantine_size_mb=8",
        )
    finally:
        shutil.rmtree(directory)
    return judge(code, output)


def native_checks(clang: str) -> Iterator[Check]:
    """The real ring under threads and sanitizers, and its headers against broken files."""

    def check(name: str, what: str, source: str, sanitizer: str, arguments: list[str], sown: list[Mutant]) -> Check:
        return Check(
            name,
            what,
            partial(run_native, clang, source, sanitizer, arguments),
            {m.name: partial(run_native, clang, source, sanitizer, arguments, m) for m in sown},
        )

    tsan = "the ring, threads on one mapping: ThreadSanitizer"
    yield check("native/ring-tsan-one", tsan, "ring", "tsan", ["one", "10000"], mutants.RACES)
    tsan = "the ring, a mapping for each: ThreadSanitizer"
    yield check("native/ring-tsan-two", tsan, "ring", "tsan", ["two", "10000"], [])
    yield check("native/ring-asan", "the ring, threads: AddressSanitizer, UBSan", "ring", "asan", ["two", "10000"], [])
    yield check("native/ring", "the ring, threads, at full speed", "ring", "plain", ["two", "20000"], mutants.LOGIC)
    fuzz = "broken segments: ASan, UBSan, nothing but Fault"
    yield check("native/header-fuzz", fuzz, "header_fuzz", "asan", ["100000"], mutants.TRUST)


def run_frames(count: int, mutant: str | None = None) -> Verdict:
    """Fuzz the broker's state machine in a process of its own."""
    arguments = ["--mutant", mutant] if mutant else []
    return judge(*execute([sys.executable, "-m", "verification.frames", str(count), *arguments]))


def frame_checks() -> Iterator[Check]:
    """Broken messages against the broker's state machine."""
    yield Check(
        "frames",
        "broken messages to the broker's state machine",
        partial(run_frames, 100_000),
        {m: partial(run_frames, 100_000, m) for m in frames.MUTANTS},
    )


def all_checks() -> tuple[list[Check], list[str]]:
    """Return the checks that can be run here, and what is missing for the others."""
    checks, missing = [Check("quotations", "each line of code that a model mirrors exists", check_quotations)], []
    clang = next((f"clang++-{n}" for n in range(30, 15, -1) if shutil.which(f"clang++-{n}")), None)
    if clang:
        checks += native_checks(clang)
    else:
        missing.append("native checks: apt-get install clang-19 libclang-rt-19-dev")
    checks += frame_checks()
    if shutil.which("spin") and shutil.which("gcc"):
        checks += spin_checks()
    else:
        missing.append("models of the protocols: apt-get install spin gcc libc6-dev")
    if Path("/usr/include/relacy/relacy.hpp").exists() and shutil.which("g++"):
        checks += relacy_checks()
    else:
        missing.append("weak-memory simulations: apt-get install relacy-dev g++")
    return checks, missing


# -------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Timed:
    """What came of one run, and how long it took (in seconds)."""

    verdict: Verdict | None
    seconds: float
    trouble: str = ""


def timed(run: Callable[[], Verdict]) -> Timed:
    """Run and time it; what prevented a verdict is kept as text."""
    began = time.monotonic()
    try:
        return Timed(run(), time.monotonic() - began)
    except (CheckError, LookupError, OSError) as error:
        return Timed(None, time.monotonic() - began, str(error))


def report(check: Check, base: Future[Timed], sown: dict[str, Future[Timed]]) -> list[str]:
    """Print the line of one check; return what is wrong with it."""
    result = base.result()
    results = {name: future.result() for name, future in sown.items()}
    killed = sum(r.verdict is not None and not r.verdict.holds for r in results.values())
    size = f"{result.verdict.size:,}" if result.verdict else "-"
    line = f"{check.name:22} {check.what[:50]:50} {size:>11} {result.seconds:6.1f} s  {killed}/{len(results)}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    wrong = []
    if result.verdict is None or not result.verdict.holds:
        wrong.append(f"{check.name} FAILED\n{result.verdict.output if result.verdict else result.trouble}")
    for name, r in results.items():
        if r.verdict is None:
            wrong.append(f"{check.name}: mutant {name} could not be tried: {r.trouble}")
        elif r.verdict.holds:
            wrong.append(f"{check.name}: mutant {name} SURVIVED")
    return wrong


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--require-all", action="store_true", help="a missing tool is an error")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="checks whose names start so")
    options = parser.parse_args()
    checks, missing = all_checks()
    if options.only:
        checks = [c for c in checks if c.name.startswith(tuple(options.only))]
    began = time.monotonic()
    sys.stdout.write(f"{'check':22} {'what':50} {'states/runs':>11} {'base':>8}  mutants killed\n")
    wrong: list[str] = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        runs = [
            (c, pool.submit(timed, c.base), {m: pool.submit(timed, r) for m, r in c.mutants.items()}) for c in checks
        ]
        for check, base, sown in runs:
            wrong += report(check, base, sown)
    for line in missing:
        sys.stdout.write(f"skipped {line}\n")
    if options.require_all:
        wrong += [f"required, but not installed: {line}" for line in missing]
    sys.stdout.write("".join(f"\n{line}\n" for line in wrong))
    sown_count = sum(len(c.mutants) for c in checks)
    sys.stdout.write(f"{len(checks)} checks, {sown_count} mutants, {time.monotonic() - began:.0f} s: ")
    sys.stdout.write("FAILED\n" if wrong else "all hold, no mutant survives\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
