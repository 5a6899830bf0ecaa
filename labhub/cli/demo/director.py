"""Starts the demo's processes, gives the words to begin and to end, and collects what they count."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from labhub.cli.demo.messages import GO, STOP, Report
from labhub.cli.demo.process import Worker
from labhub.cli.demo.readers import READERS
from labhub.cli.demo.sources import SOURCES
from labhub.datablock.location import segment_directory
from labhub.errors import LabHubError

# Bounds (in seconds) on starting up, and on draining after the word to stop.
START_TIMEOUT = 30.0
DRAIN_TIMEOUT = 15.0
# How long the processes may take to leave after their last word (in seconds).
EXIT_TIMEOUT = 5.0
REFRESH = 0.1

# What ends the demo early.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Show = Callable[[float], None]


class Director:
    """The whole demo: broker, producers, readers, in the order that makes every slot accountable.

    Readers attach before the first slot is written and read on after the last, so `received + lost` must be
    `produced` for each of them.

    Parameters
    ----------
    home : Path
        Private directory for the connection file, the keys and the logs.
    segments : Path
        Private directory for the segments.
    store : Path or None
        Where everything is recorded, if it is.

    Attributes
    ----------
    broker : Worker or None
        The process of the broker, once it was started.
    producers, readers : dict of str to Worker
        By channel, and by reader's name.
    recorder : Worker or None
        The process that records.
    """

    def __init__(self, home: Path, segments: Path, store: Path | None = None) -> None:
        self.store = store
        self.recorder: Worker | None = None
        self._home = home
        self._runtime = home / "run"
        self._segments = segments
        self._runtime.mkdir(mode=0o700)
        self._environment = os.environ | {
            "LABHUB_RUNTIME_DIR": str(self._runtime),
            "LABHUB_DATA_DIR": str(home / "data"),
            "LABHUB_SHM_DIR": str(segments),
        }
        self._changed = threading.Condition()
        self.broker: Worker | None = None
        self.producers: dict[str, Worker] = {}
        self.readers: dict[str, Worker] = {}

    @property
    def endpoint(self) -> str:
        """Where the broker listens."""
        return "" if self.broker is None or self.broker.report is None else self.broker.report.now

    def begin(self) -> None:
        """Start every process, wait until all are registered or attached, and let the producers write.

        Raises
        ------
        LabHubError
            One of them did not get that far.
        """
        with _uninterrupted():
            self.broker = self._spawn("serve", "broker")
        self._wait_for("ready", [self.broker], START_TIMEOUT)
        with _uninterrupted():
            self.producers = {name: self._spawn("produce", name) for name in SOURCES}
            self.readers = {name: self._spawn("read", name) for name in READERS}
            if self.store is not None:
                self.recorder = self._spawn("record", str(self.store.absolute()))
        workers = [*self.producers.values(), *self.readers.values(), *self._recorders()]
        self._wait_for("ready", workers, START_TIMEOUT)
        for worker in (*self._recorders(), *self.producers.values()):
            worker.say(GO)

    def watch(self, seconds: float, show: Show, asked_to_end: Callable[[], bool]) -> bool:
        """Let it run, and call `show` ten times a second with the time since the start (in seconds).

        Returns
        -------
        bool
            Whether it ran for so long; False if it was asked to end before.
        """
        start = time.monotonic()
        while (elapsed := time.monotonic() - start) < seconds:
            if asked_to_end():
                return False
            show(elapsed)
            self._raise_failures()
            time.sleep(min(REFRESH, seconds - elapsed))
        return True

    def finish(self) -> None:
        """Stop the producers, let the readers read what is left, stop the broker, and wait for every process.

        Raises
        ------
        LabHubError
            A process failed or did not come to its end in time.
        """
        # The readers are told last: for them the word means not to dawdle over what is left.
        for workers in (self.producers.values(), self.readers.values(), self._recorders()):
            for worker in workers:
                worker.say(STOP)
            self._wait_for("done", list(workers), DRAIN_TIMEOUT)
        if self.broker is not None:
            self.broker.say(STOP)
            self._wait_for("done", [self.broker], DRAIN_TIMEOUT)
        self.end()

    @staticmethod
    def last_words(workers: Mapping[str, Worker]) -> dict[str, Report]:
        """The latest report of each worker that made one."""
        return {name: worker.report for name, worker in workers.items() if worker.report is not None}

    def end(self) -> None:
        """Close the pipes of every process and wait for it; one that does not leave is killed. Twice is harmless."""
        for worker in [*self.producers.values(), *self.readers.values(), *self._recorders()]:
            worker.hang_up()
        # The broker last, so that the others can still deregister.
        deadline = time.monotonic() + EXIT_TIMEOUT
        for worker in self._workers():
            worker.end(deadline)

    def left_behind(self) -> list[str]:
        """Files that are still in the segment and runtime directories."""
        return sorted(str(path) for top in (self._segments, self._runtime) for path in top.rglob("*") if path.is_file())

    def _workers(self) -> list[Worker]:
        broker = [] if self.broker is None else [self.broker]
        return [*self.producers.values(), *self.readers.values(), *self._recorders(), *broker]

    def _recorders(self) -> list[Worker]:
        return [] if self.recorder is None else [self.recorder]

    def _spawn(self, role: str, name: str) -> Worker:
        log = self._home / f"{Path(name).name.replace(' ', '-')}.log"
        return Worker(role, name, log, self._environment, self._changed)

    def _wait_for(self, state: str, workers: list[Worker], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while late := [worker for worker in workers if worker.state != state]:
                self._raise_failures()
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    names = ", ".join(worker.name for worker in late)
                    raise LabHubError(f"the demo waited {timeout:g} s in vain for {names} to be {state}")
                self._changed.wait(remaining)

    def _raise_failures(self) -> None:
        if failed := [worker for worker in self._workers() if worker.state == "failed"]:
            raise LabHubError("; ".join(f"{worker.name}: {worker.complaint}" for worker in failed))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back for a moment, so that no process is started without being remembered, or left unattended."""
    held_back: list[int] = []
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number in INTERRUPTS:
        signal.signal(number, lambda received, _frame: held_back.append(received))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held_back:
        raise KeyboardInterrupt


@contextmanager
def directing(store: Path | None = None) -> Iterator[Director]:
    """A director with private directories; whatever happens inside, no process and no file of it remains."""
    # Beside the segments of everyday use, because that is where shared memory was found to be large enough.
    shared_memory = next(parent for parent in Path(segment_directory()).parents if parent.is_dir())
    with (
        tempfile.TemporaryDirectory(prefix="labhub-demo-") as home,
        tempfile.TemporaryDirectory(prefix="labhub-demo-", dir=shared_memory) as segments,
    ):
        director = Director(Path(home), Path(segments), store)
        try:
            yield director
        finally:
            with _uninterrupted():
                director.end()
