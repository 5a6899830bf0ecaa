"""The limits: the same ring driven by two C++ processes, and memcpy of the same bytes in one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import IO, cast

from bench.compiled import built
from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import rate
from bench.workload import Workload

HERE = Path(__file__).parent


class Native(Contender):
    """What runs `pair` in the processes of a run."""

    role = "limit"
    batches = True

    def missing(self) -> str | None:
        """It is compiled for each session."""
        return None if shutil.which("g++") else "there is no g++"

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Compile."""
        return built(HERE / "pair.cpp")

    @contextmanager
    def running(self, what: str, workload: Workload, place: Place) -> Iterator[subprocess.Popen[str]]:
        """Run the program, which is ready when this returns; on the CPU of this process, as it inherits that."""
        numbers = (workload.nbytes, workload.batch, workload.slots_in_flight, workload.amount)
        command = [str(place.shared), what, str(place.directory), *map(str, numbers)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            try:
                self._listen(program, "ready")
                yield program
                self._go(program)
                if program.wait(PATIENCE):
                    raise RuntimeError(f"{what} ended with status {program.returncode}")
            finally:
                program.kill()

    def _go(self, program: subprocess.Popen[str]) -> None:
        stdin = cast(IO[str], program.stdin)
        stdin.write("\n")
        stdin.flush()

    def _listen(self, program: subprocess.Popen[str], word: str = "") -> str:
        line = cast(IO[str], program.stdout).readline().strip()
        if not line or (word and line != word):
            raise RuntimeError(f"the program said {line!r} where {word or 'a figure'} was due")
        return line

    def _measured(self, part: str, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Run a part of the program that measures."""
        with self.running(part, workload, place) as program:
            gate.start()
            self._go(program)
            seconds = float(self._listen(program))
            figures = rate(int(self._listen(program)), seconds)
            self._listen(program, "ready")
            gate.finish()
            return figures


class Pair(Native):
    """Producer and consumer in C++, on labhub's ring."""

    name = "C++ on the same ring"
    prefix = ""

    def supports(self, workload: Workload) -> bool:
        """Take part in every stream of lossless readers."""
        return workload.kind == "stream" and not workload.lossy

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Be the producer."""
        with self.running(f"{self.prefix}produce", workload, place) as program:
            gate.created()
            gate.start()
            self._go(program)
            self._listen(program, "ready")
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Be a consumer."""
        gate.await_created()
        return self._measured(f"{self.prefix}consume", workload, place, gate)


class Bare(Pair):
    """Two C++ processes that spin on two counters: nothing but the bytes, from one core to the other.

    Not an upper bound: a reader that follows so closely takes each line away while the next one is written, where one
    that sleeps finds many.
    """

    name = "core to core"
    prefix = "bare-"
    batches = False

    def supports(self, workload: Workload) -> bool:
        """One reader; a batch is no less to move."""
        return workload.kind == "stream" and workload.readers == 1


class Memcpy(Native):
    """From the source to the slots, by one process, and nobody reads them."""

    name = "memcpy"

    def supports(self, workload: Workload) -> bool:
        """One copy is one copy, whoever reads it."""
        return workload.kind == "stream" and workload.readers == 1

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Leave the machine to the other."""
        gate.start()
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Copy."""
        return self._measured("memcpy", workload, place, gate)


class Scan(Native):
    """What a C++ producer's look at its consumers' cursors costs, in one process."""

    name = "C++ producer"

    def supports(self, workload: Workload) -> bool:
        """Measure nothing else."""
        return workload.kind == "scan"

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Compile the program of ``benchmarks/scan.py``, which counts instructions."""
        return built(HERE.parents[1] / "scan.cpp")

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Leave the machine to the other."""
        gate.start()
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Run it; it says how many nanoseconds one look took."""
        gate.start()
        command = [str(place.shared), str(place.directory), str(workload.batch), str(workload.amount)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
        gate.finish()
        return {"ns": float(done.stdout)}
