"""The limits of the machine, in C++: a futex, a cache line between two cores, and the same ring without Python."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
from bench.compiled import built
from bench.contender import Gate, Place, WrongSlot
from bench.workload import Workload
from numpy.typing import NDArray

from latency.duplex import PERIOD, Duplex, Loops

HERE = Path(__file__).parent


class CppLoops(Loops):
    """The loops of ``limits.cpp``, called in this process.

    Parameters
    ----------
    library : CDLL
    ends : c_void_p
        What its function ``make`` returned.
    """

    def __init__(self, library: ctypes.CDLL, ends: ctypes.c_void_p) -> None:
        self._library = library
        self._ends = ends

    def echo(self, n: int) -> None:
        """See `Loops`."""
        self._library.echo(self._ends, ctypes.c_int64(n))

    def round_trips(self, n: int) -> Sequence[int]:
        """See `Loops`."""
        taken = np.zeros(n, np.int64)
        self._library.round_trips(self._ends, ctypes.c_int64(n), self._address(taken))
        if (taken < 0).any():
            raise WrongSlot("another number came back than was sent")
        return taken.tolist()

    def tick(self, n: int) -> None:
        """See `Loops`."""
        self._library.tick(self._ends, ctypes.c_int64(n), ctypes.c_int64(int(PERIOD * 1e9)))

    def delays(self, n: int) -> Sequence[int]:
        """See `Loops`."""
        taken = np.zeros(n, np.int64)
        self._library.delays(self._ends, ctypes.c_int64(n), self._address(taken))
        return taken.tolist()

    def _address(self, taken: NDArray[np.int64]) -> ctypes.c_void_p:
        return ctypes.c_void_p(taken.ctypes.data)


class InCpp(Duplex):
    """What runs in ``limits.cpp``.

    Parameters
    ----------
    name : str
    ring : bool
        Over labhub's ring, or over a bare word in shared memory.
    sleeps : bool
        With a futex, or polling.
    """

    role = "limit"

    def __init__(self, name: str, *, ring: bool, sleeps: bool) -> None:
        self.name = name
        self.ring = ring
        self.sleeps = sleeps

    def missing(self) -> str | None:
        """It is compiled for each session."""
        return None if shutil.which("g++") else "there is no g++"

    def share(self, workload: Workload, context: BaseContext) -> object:
        """Compile."""
        return built(HERE / "limits.cpp", "-shared", "-fPIC")

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Make what is this process's, and attach to what the other has made."""
        library = ctypes.CDLL(str(place.shared))
        library.make.restype = ctypes.c_void_p
        first = place.consumer < 0
        ends = ctypes.c_void_p(library.make(os.fsencode(place.directory), self.ring, first, self.sleeps))
        gate.start()
        library.attach(ends)
        yield CppLoops(library, ends)
        library.finish(ends)
