"""What was promised, and whether a result keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.results import Result
from bench.statistics import Interval, Verdict, interval, verdict

FASTEST = "the fastest Python peer"
PAIR = "C++ on the same ring"
HANDWRITTEN = "shared_memory, sched_yield"


@dataclass(frozen=True)
class Target:
    """One promise about labhub, within one session.

    Attributes
    ----------
    workload : str
    against : str
        Name of a contender, `FASTEST`, or empty for labhub's figure itself.
    bound : float
    relation : {"ratio", "difference", "value"}
        What is compared with the bound: labhub by the other, labhub less the other, or labhub's own figure.
    at_most : bool
        Whether the bound is an upper one.
    subject : str
        Whose figure it is.
    without : str
        A contender that `FASTEST` leaves out.
    """

    workload: str
    against: str
    bound: float
    relation: Literal["ratio", "difference", "value"] = "ratio"
    at_most: bool = False
    subject: str = "labhub"
    without: str = ""

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        match self.relation:
            case "ratio":
                other = self.against + (f" but {self.without}" if self.without else "")
                return f"{sign} {self.bound:g} × {other}"
            case "difference":
                return f"{sign} {self.bound:g} over {self.against}"
            case "value":
                return f"{sign} {self.bound:g}"


@dataclass(frozen=True)
class Judgement:
    """A target and what was found.

    Attributes
    ----------
    target : Target
    against : str
        The contender that it was compared with, by name.
    found : Interval or None
        Of the rounds that found the CPUs alike: what the verdict rests on.
    everything : Interval or None
        Of all rounds, so that one sees what leaving the others out did.
    verdict : str
    """

    target: Target
    against: str
    found: Interval | None
    everything: Interval | None
    verdict: Verdict


RELATIONS: dict[str, Callable[[float, float], float]] = {
    "ratio": lambda own, other: own / other,
    "difference": lambda own, other: own - other,
    "value": lambda own, _: own,
}

TARGETS = (
    Target("64 B, one by one", FASTEST, 3),
    Target("64 B, one by one", PAIR, 0.4),
    Target("64 B, batches of 1024", FASTEST, 30),
    # Slots that a peer delivers one by one, with what belongs to each: a copied block of 1024 is another thing.
    Target("64 B, batches of 1024", FASTEST, 30, without=HANDWRITTEN),
    Target("64 B, batches of 1024", PAIR, 0.5),
    Target("4 KiB, one by one", FASTEST, 1),
    Target("4 KiB, batches of 64", FASTEST, 3),
    *(
        Target(workload, PAIR, 0.8)
        for size, batch in (("64 KiB", 8), ("1 MiB", 2), ("8 MiB", 2))
        for workload in (f"{size}, one by one", f"{size}, batches of {batch}")
    ),
    Target("8 MiB, one by one", "iceoryx2, polling", 1),
    Target("8 MiB, one by one", "iceoryx2, event", 1),
    Target("1 MiB, to 4 consumers", PAIR, 0.7),
    Target("1 MiB, to 4 consumers", "iceoryx2, event", 1),
    Target("a look at 64 cursors", "", 100, "value", at_most=True, subject="C++ producer"),
    Target("datasets() of 1000 slots", "numpy copy", 1, "difference", at_most=True),
    Target("ping-pong, 64 B", "C futex", 1.3, at_most=True),
    Target("ping-pong, 64 B", "iceoryx2, polling", 0.4, at_most=True, subject="labhub, busy polling"),
    Target("wake-up at 1 kHz", "C futex", 1.3, at_most=True),
    Target("CPU of a reader at 1 kHz", "", 3, "value", at_most=True),
    Target("wake-up after 10 s, before = 1", "", 1.1, "value", at_most=True),
)


def opponent(target: Target, result: Result) -> str:
    """Return the name of the contender that labhub is compared with; empty if it was not there."""
    if target.against != FASTEST:
        return target.against
    peers = {
        name: np.nanmedian(values)
        for name, values in result.figures.get(target.workload, {}).items()
        if result.roles[name] == "peer" and name != target.without and not np.isnan(values).all()
    }
    return max(peers, key=peers.__getitem__, default="")


def judge(target: Target, result: Result) -> Judgement:
    """Compare, within each round, and judge."""
    against = opponent(target, result)
    other = target.subject if target.relation == "value" else against
    compare = RELATIONS[target.relation]
    found, everything = (
        interval([compare(a, b) for a, b in result.pairs(target.workload, target.subject, other, like=like)])
        for like in (True, False)
    )
    return Judgement(target, against, found, everything, verdict(found, target.bound, at_most=target.at_most))
