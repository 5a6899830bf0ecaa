"""The books of one fault test: how often the fault was provoked, survived, and how long recovery took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

T = TypeVar("T")
QUICK_PATIENCE = 10.0
"""In quick rounds a recovery may take this many times its limit: they look for hangs, on any machine."""


@dataclass
class Fault:
    """One fault of the catalogue under test; what the fixture `fault` gives.

    Attributes
    ----------
    number : int
        Its number in the catalogue.
    name : str
        What is done, in words.
    quick, full : int
        Rounds in `make test`, and the least number of rounds in `make torture`.
    seconds : float or None
        This test's share of the torture (in seconds); None in `make test`.
    p99 : float or None
        What 99 % of the recoveries must not exceed (in seconds).
    rounds, survived, occurred : int
        Rounds begun, rounds ended as expected, and how often the fault was seen to have happened.
    recoveries : list of float
        How long each recovery took (in seconds).
    """

    number: int
    name: str
    quick: int = 1
    full: int = 1
    seconds: float | None = None
    p99: float | None = None
    rounds: int = 0
    survived: int = 0
    occurred: int = 0
    recoveries: list[float] = field(default_factory=list)

    @property
    def torture(self) -> bool:
        """Whether this is a full run, in which limits are judged as they stand."""
        return self.seconds is not None

    @property
    def at_least(self) -> int:
        """The rounds that this run asks for."""
        return self.full if self.torture else self.quick

    def each_round(self) -> Iterator[int]:
        """Number the rounds: as many as asked for, and in a full run on until this test's share of time is used."""
        ends = time.monotonic() + (self.seconds or 0.0)
        number = 0
        while number < self.at_least or time.monotonic() < ends:
            yield from self.each([number])
            number += 1

    def each(self, cases: Iterable[T]) -> Iterator[T]:
        """Pass the cases on, each as a round of its own."""
        for case in cases:
            self.rounds += 1
            yield case
            self.survived += 1

    @contextmanager
    def round(self) -> Iterator[None]:
        """Count what is done inside as one round, where a loop is not at hand (an example of Hypothesis)."""
        self.rounds += 1
        yield
        self.survived += 1

    def happened(self, times: int = 1) -> None:
        """Say that the fault was seen to have happened: a kill in the middle of a copy, a full disk."""
        self.occurred += times

    def recovered(self, seconds: float) -> None:
        """Note how long one recovery took (in seconds)."""
        self.recoveries.append(seconds)

    @contextmanager
    def recovery(self) -> Iterator[None]:
        """Time what is done inside as one recovery."""
        began = time.monotonic()
        yield
        self.recovered(time.monotonic() - began)

    def quantile(self, share: float) -> float | None:
        """Return the recovery time (in seconds) that a share of them does not exceed; None without any."""
        return float(np.quantile(self.recoveries, share)) if self.recoveries else None

    def judge(self) -> None:
        """Fail a test in which nothing happened, too little was tried, or recovery took too long."""
        assert self.occurred, f"fault {self.number} never happened in {self.rounds} rounds: the test proves nothing"
        assert self.rounds >= self.at_least, f"{self.rounds} rounds of {self.at_least}"
        slow = self.quantile(0.99)
        if self.p99 is not None and slow is not None:
            limit = self.p99 * (1.0 if self.torture else QUICK_PATIENCE)
            assert slow <= limit, f"99 % of the recoveries took up to {slow:.3f} s; the limit is {limit} s"
