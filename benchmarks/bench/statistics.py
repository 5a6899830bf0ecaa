"""Medians, their uncertainty, and whether a target holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import bootstrap

Verdict = Literal["holds", "undecided", "missed", "too few rounds", "not measured"]
TOLERANCE = 0.9
"""A target holds only if the interval's worse end comes as near to it as this."""
ENOUGH = 20
"""Rounds from which on a verdict is given."""
RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % bootstrap interval.

    Attributes
    ----------
    median, low, high : float
    n : int
        Of how many values.
    """

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}] of {self.n}"


def interval(values: Sequence[float]) -> Interval | None:
    """Return the median of values and its 95 % percentile bootstrap interval; None without values."""
    if not values:
        return None
    middle = float(np.median(values))
    if len(values) == 1:
        return Interval(middle, -np.inf, np.inf, 1)
    found = bootstrap(
        (np.asarray(values),),
        np.median,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(1),  # the same report from the same measurements
    ).confidence_interval
    return Interval(middle, float(found.low), float(found.high), len(values))


def verdict(found: Interval | None, target: float, *, at_most: bool = False) -> Verdict:
    """Judge an interval by a target.

    It holds when the median reaches the target and the interval's worse end reaches `TOLERANCE` of it; it is missed
    when the whole interval is on the wrong side.
    """
    if found is None:
        return "not measured"
    if found.n < ENOUGH:
        return "too few rounds"
    if at_most:
        reached, near, out = found.median <= target, found.high <= target / TOLERANCE, found.low > target
    else:
        reached, near, out = found.median >= target, found.low >= target * TOLERANCE, found.high < target
    if reached and near:
        return "holds"
    return "missed" if out else "undecided"
