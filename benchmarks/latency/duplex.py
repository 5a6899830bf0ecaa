"""Two processes, a channel each way, and the loops that measure: the same for everybody.

A record is 64 bytes; its first word is what counts. In ping-pong the consumer sends a number and waits until it is
back. At a wake-up the word is the time at which the producer began to send; both processes read the same clock.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from bench.contender import Contender, Figures, Gate, Place, WrongSlot
from bench.workload import Workload

WARM_UP = 200
"""Round trips, or slots, at the beginning that do not count."""
CAPACITY = 64
"""Records that may be under way; more than one only at a wake-up, when the reader is late."""
PERIOD = 1e-3
"""Of the slots that wake a reader up (in seconds)."""

Send = Callable[[int], object]
Receive = Callable[[], int]
clock = time.monotonic_ns


class Loops(ABC):
    """What one process does with its two ends."""

    @abstractmethod
    def echo(self, n: int) -> None:
        """Send `n` words back."""

    @abstractmethod
    def round_trips(self, n: int) -> Sequence[int]:
        """Send the numbers from 0 on and wait for each; how long it took (in nanoseconds).

        Raises
        ------
        WrongSlot
            If another one comes back.
        """

    @abstractmethod
    def tick(self, n: int) -> None:
        """Send the time, one `PERIOD` after the other; a tick that was missed does not hurry the next."""

    @abstractmethod
    def delays(self, n: int) -> Sequence[int]:
        """Receive; how long after it began to be sent each word is there (in nanoseconds)."""


class PythonLoops(Loops):
    """Loops over two functions."""

    def __init__(self, send: Send, receive: Receive) -> None:
        self._send = send
        self._receive = receive

    def echo(self, n: int) -> None:
        """See `Loops`."""
        send, receive = self._send, self._receive
        for _ in range(n):
            send(receive())

    def round_trips(self, n: int) -> Sequence[int]:
        """See `Loops`."""
        send, receive, taken = self._send, self._receive, []
        for number in range(n):
            began = clock()
            send(number)
            back = receive()
            taken.append(clock() - began)
            if back != number:
                raise WrongSlot(f"{back} came back instead of {number}")
        return taken

    def tick(self, n: int) -> None:
        """See `Loops`."""
        send, due = self._send, time.monotonic()
        for _ in range(n):
            due = max(due + PERIOD, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            send(clock())

    def delays(self, n: int) -> Sequence[int]:
        """See `Loops`."""
        receive, taken = self._receive, []
        for _ in range(n):
            sent = receive()
            taken.append(clock() - sent)
        return taken


class Duplex(Contender):
    """Something that brings a record there and another one back."""

    sleeps = True
    """Whether its reader sleeps while there is nothing: only those can be woken up."""

    def supports(self, workload: Workload) -> bool:
        """Take part in ping-pong, and in wake-ups if there is somebody to wake; only labhub stays for the idle time."""
        if workload.kind == "wakeup":
            return self.sleeps and (workload.idle == 0 or self.role == "labhub")
        return workload.kind == "pingpong"

    @abstractmethod
    def ends(self, place: Place, gate: Gate) -> AbstractContextManager[Loops]:
        """Open both ends of this process, and meet the other at `gate`."""

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Send back what comes, or send the time at each tick."""
        with self.ends(place, gate) as loops:
            if workload.kind == "pingpong":
                loops.echo(WARM_UP + workload.amount)
            else:
                loops.tick(WARM_UP + workload.amount)
                if workload.idle:
                    time.sleep(workload.idle)
                    loops.tick(workload.amount)
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Measure."""
        with self.ends(place, gate) as loops:
            if workload.kind == "pingpong":
                figures = quantiles(loops.round_trips(WARM_UP + workload.amount)[WARM_UP:])
            else:
                loops.delays(WARM_UP)
                figures = woken(loops, workload.amount)
                if workload.idle:
                    figures = woken_from_idleness(loops, workload.amount, figures["p50_us"])
            gate.finish()
            return figures


def woken(loops: Loops, amount: int) -> Figures:
    """Find out how late so many words are, and what share of a CPU it takes to wait for them."""
    began, used = time.monotonic(), time.process_time()
    taken = loops.delays(amount)
    share = (time.process_time() - used) / (time.monotonic() - began)
    return {**quantiles(taken), "cpu_percent": 100 * share}


def woken_from_idleness(loops: Loops, amount: int, before_us: float) -> Figures:
    """Find the same after an idle time: how late its first word is, and how many times later the others than before."""
    began, used = time.monotonic(), time.process_time()
    (first,) = loops.delays(1)
    idle_share = (time.process_time() - used) / (time.monotonic() - began)
    figures = woken(loops, amount - 1)
    return {
        **figures,
        "first_us": first / 1e3,
        "idle_cpu_percent": 100 * idle_share,
        "times": figures["p50_us"] / before_us,
    }


def quantiles(taken_ns: Sequence[int]) -> Figures:
    """Return median and 99 % quantile (in microseconds)."""
    middle, late = np.quantile(taken_ns, (0.5, 0.99)) / 1e3
    return {"p50_us": float(middle), "p99_us": float(late)}
