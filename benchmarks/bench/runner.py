"""Run one contender in pinned processes of its own; and all of them interleaved."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

from common import interleaved, machine
from tqdm import tqdm

from bench import statistics
from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.meter import program, reading
from bench.payload import compiled_verifier
from bench.results import Result
from bench.targets import TARGETS, opponent
from bench.workload import Workload

SECONDS = 0.1
"""How long the slots of one run should flow."""
ENOUGH = 2
"""After so many failed runs of one workload a contender is left out of it."""


class RunFailed(Exception):
    """One process of a run failed, or the run took too long."""


def context() -> ForkServerContext:
    """Return what starts the processes: each one new, from a server that has imported everything before."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["bench.__main__"])
    return found


def cpus() -> list[int]:
    """Return the CPUs to pin to: the first is the producer's, consumers share the others."""
    return sorted(os.sched_getaffinity(0))


def cpu_of(consumer: int) -> int:
    """Return the CPU of one consumer, counted from 0."""
    own = cpus()
    others = own[1:] or own
    return others[consumer % len(others)]


def party(
    contender: Contender, workload: Workload, place: Place, gate: Gate, meter: Path | None, answer: Connection
) -> None:
    """Be one process of a run."""
    os.sched_setaffinity(0, {place.cpu})
    try:
        before = reading(meter, place, "line_before_ns")
        began = usage()
        figures: Figures = {}
        if place.consumer < 0:
            contender.produce(workload, place, gate)
        else:
            figures = contender.consume(workload, place, gate)
        side = "producer" if place.consumer < 0 else "consumer"
        used = {f"{side}_{name}": value - began[name] for name, value in usage().items()}
        answer.send({**figures, **used, **before, **reading(meter, place, "line_after_ns")})
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told, and the others are released
        answer.send(words_of(error))
        gate.abort()


def words_of(error: BaseException) -> str:
    """Say what went wrong first: what fails while things are taken down after that is only a consequence."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def usage() -> Figures:
    """Return what this process and its children have had so far: seconds of CPU, sleeps, and losses of the CPU."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "cpu_s": sum(u.ru_utime + u.ru_stime for u in used),
        "sleeps": float(sum(u.ru_nvcsw for u in used)),
        "preempted": float(sum(u.ru_nivcsw for u in used)),
    }


def run(contender: Contender, workload: Workload) -> Figures:
    """Run one contender once.

    Returns
    -------
    mapping of str to float
        What its slowest lossless consumer found.

    Raises
    ------
    RunFailed
    """
    if workload.batch > 1 and not contender.batches:
        workload = replace(workload, batch=1)
    starter = context()
    meter = program()
    directory = Path(tempfile.mkdtemp(prefix=f"labhub-bench-{os.getpid()}-", dir="/dev/shm"))
    processes: list[BaseProcess] = []
    answers: list[Connection] = []
    try:
        shared = contender.share(workload, starter)
        gate = Gate(starter, 1 + workload.readers)
        for consumer in range(-1, workload.readers):
            cpu = cpus()[0] if consumer < 0 else cpu_of(consumer)
            place = Place(directory, shared, consumer, cpu, compiled_verifier())
            here, there = starter.Pipe(duplex=False)
            process = starter.Process(target=party, args=(contender, workload, place, gate, meter, there), daemon=False)
            process.start()
            there.close()
            processes.append(process)
            answers.append(here)
        figures = collect(answers)
    finally:
        end(processes)
        shutil.rmtree(directory, ignore_errors=True)
    slowest = min(figures[1 : 1 + workload.consumers], key=lambda found: found.get(workload.figure, 0.0))
    lossy = figures[1 + workload.consumers :]
    return {**figures[0], **slowest, **{f"lossy_{name}": value for found in lossy for name, value in found.items()}}


def collect(answers: list[Connection]) -> list[Figures]:
    """Wait for what each process answers, in the order of `answers`; the first that fails ends it for all."""
    found: dict[Connection, Figures] = {}
    deadline = monotonic() + 2 * PATIENCE
    while len(found) < len(answers):
        ready = wait([a for a in answers if a not in found], max(0.0, deadline - monotonic()))
        if not ready:
            raise RunFailed(f"nothing more came within {2 * PATIENCE:g} s")
        for answer in ready:
            assert isinstance(answer, Connection)
            try:
                outcome: Figures | str = answer.recv()
            except EOFError:
                outcome = "a process died"
            if isinstance(outcome, str):
                raise RunFailed(outcome)
            found[answer] = outcome
    return [found[answer] for answer in answers]


def end(processes: list[BaseProcess]) -> None:
    """See to it that nobody is left."""
    for process in processes:
        process.join(2.0)
        if process.is_alive():
            process.kill()
            process.join(PATIENCE)
        process.close()


def fitted(contender: Contender, workload: Workload) -> Workload:
    """Find out how many slots of a stream take `SECONDS`; a first run of everybody, which does not count."""
    if workload.kind != "stream":
        run(contender, workload)
        return workload
    least = max(4 * workload.slots_in_flight, 8 * workload.batch)
    amount = least
    for _ in range(3):
        figures = run(contender, replace(workload, amount=amount))
        wanted = max(least, int(figures["per_second"] * SECONDS))
        done = figures["seconds"] > SECONDS / 3 or wanted <= amount
        amount = -(-wanted // workload.batch) * workload.batch
        if done:
            break
    return replace(workload, amount=amount)


def attempt(contender: Contender, workload: Workload, failures: list[str]) -> Figures | None:
    """Run once; a failure is noted, and after `ENOUGH` of them nobody waits for another one."""
    label = f"{workload.name}, {contender.name}: "
    if sum(failure.startswith(label) for failure in failures) >= ENOUGH:
        return None
    try:
        return run(contender, workload)
    except RunFailed as failure:
        failures.append(f"{label}{failure}")
        return None


def session(contenders: Iterable[Contender], workloads: Iterable[Workload], rounds: int) -> Result:
    """Measure everything once in each round, contender beside contender."""
    found = Result({**machine(), "pinned_to": cpus()}, rounds, {w.name: w for w in workloads})
    present = []
    for contender in contenders:
        why = contender.missing()
        if why is None:
            present.append(contender)
            found.roles[contender.name] = contender.role
        else:
            found.missing[contender.name] = why
    pairs = [
        (w, c) for w in found.workloads.values() for c in present if c.supports(w) and (w.peers or c.role != "peer")
    ]
    measures = {}
    with tqdm(total=len(pairs) * (rounds + 1), unit="run") as progress:
        for workload, contender in pairs:
            key = workload.name, contender.name
            try:
                with told(progress, "fitting", *key):
                    fit = fitted(contender, workload)
            except RunFailed as failure:
                found.failures.append(f"{workload.name}, {contender.name}: {failure}")
                continue
            measures[key] = partial(one_run, progress, contender, fit, found.failures)
        for (workload_name, contender_name), figures in interleaved(measures, rounds).items():
            found.runs.setdefault(workload_name, {})[contender_name] = figures
        if rounds >= statistics.ENOUGH:
            complete(found, measures)
    return found


def complete(found: Result, measures: Mapping[tuple[str, str], Callable[[], Figures | None]]) -> None:
    """Repeat what targets compare until enough rounds found the CPUs alike; at most twice as many rounds more.

    When it ends depends on where the CPUs were, never on who was faster.
    """
    wanted: dict[str, set[tuple[str, str]]] = {}
    for target in TARGETS:
        pair = target.subject, target.subject if target.relation == "value" else opponent(target, found)
        if all((target.workload, name) in measures for name in pair):
            wanted.setdefault(target.workload, set()).add(pair)
    for workload, pairs in wanted.items():
        for number in range(2 * found.rounds):
            lacking = {n for pair in pairs if len(found.pairs(workload, *pair)) < statistics.ENOUGH for n in pair}
            if not lacking:
                break
            figures = {name: measures[workload, name]() for name in sorted(lacking, reverse=number % 2 == 1)}
            for name, runs in found.runs[workload].items():
                runs.append(figures.get(name))


def one_run(progress: tqdm[None], contender: Contender, workload: Workload, failures: list[str]) -> Figures | None:
    """Run once, and show it."""
    with told(progress, workload.name, contender.name):
        return attempt(contender, workload, failures)


@contextmanager
def told(progress: tqdm[None], *words: str) -> Iterator[None]:
    """Show what is being done, and then that it was done."""
    progress.set_postfix_str(", ".join(words))
    yield
    progress.update()
