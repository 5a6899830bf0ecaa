"""What takes part: labhub, a peer, or a limit of the machine; and how the processes of one run meet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from threading import BrokenBarrierError
from typing import ClassVar, Literal

from bench.workload import Workload

Figures = Mapping[str, float]
Role = Literal["labhub", "peer", "limit"]
PATIENCE = 30.0
"""How long a run may take, and its processes wait for each other (in seconds)."""


class Gate:
    """Where the processes of one run wait for each other; each wait is bounded.

    The order of a run: the producer makes what consumers attach to and calls `created`; consumers call `await_created`
    and attach; all of them call `start`; data flows; all of them call `finish`, and only then anything is taken down.

    Parameters
    ----------
    context : BaseContext
        The multiprocessing context of the processes.
    parties : int
        The producer and all consumers.
    """

    def __init__(self, context: BaseContext, parties: int) -> None:
        self._created = context.Event()
        self._start = context.Barrier(parties, timeout=PATIENCE)
        self._finish = context.Barrier(parties, timeout=PATIENCE)

    def created(self) -> None:
        """Say that consumers may attach (producer)."""
        self._created.set()

    def await_created(self) -> None:
        """Wait until there is something to attach to (consumer)."""
        if not self._created.wait(PATIENCE):
            raise TimeoutError(f"the producer made nothing to attach to within {PATIENCE:g} s")
        if self._start.broken:
            raise BrokenBarrierError

    def start(self) -> None:
        """Wait until everybody is ready."""
        self._start.wait()

    def finish(self) -> None:
        """Wait until everybody is done."""
        self._finish.wait()

    def abort(self) -> None:
        """Let nobody wait any longer: a process of the run has failed."""
        self._start.abort()
        self._finish.abort()
        self._created.set()


@dataclass(frozen=True)
class Place:
    """Where one run takes place, as one of its processes sees it.

    Attributes
    ----------
    directory : Path
        A private directory on tmpfs, also labhub's segment directory; the runner removes it.
    shared : object
        What the contender's `share` returned.
    consumer : int
        Number of this consumer, from 0; those that lose nothing come first. -1 in the producer.
    cpu : int
        The CPU that this process is pinned to.
    verifier : Path
        The compiled library that verifies batches.
    """

    directory: Path
    shared: object = None
    consumer: int = -1
    cpu: int = 0
    verifier: Path = Path()

    @property
    def name(self) -> str:
        """A name that is unique on the machine, for what needs one."""
        return f"{self.directory.name}-run"


class Contender(ABC):
    """One way to bring slots from a producer process to consumer processes.

    It is pickled into every process of a run, so it holds nothing but its settings. A run that raises is reported and
    does not end the session.
    """

    name: str
    role: ClassVar[Role] = "peer"
    batches: ClassVar[bool] = False
    """Whether it can write and read many slots with one call. Others are given the same slots one by one."""

    def missing(self) -> str | None:
        """Say why it cannot run here, for instance which package is not installed; None if it can."""
        return None

    @abstractmethod
    def supports(self, workload: Workload) -> bool:
        """Whether it can do this at all."""

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Make, in the runner's process, what both sides must inherit; None if nothing."""
        del workload, context
        return None

    @abstractmethod
    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Be the producer of one run."""

    @abstractmethod
    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Be one consumer: take every slot, verify its number, and return what was measured.

        Raises
        ------
        WrongSlot
            If a slot is missing, torn or out of order: the run counts for nothing.
        """


class WrongSlot(Exception):
    """A consumer got something else than what was sent."""
