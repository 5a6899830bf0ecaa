"""Decimation for plots: many samples become two points per column, and no peak is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = np.nan
"""A point where there is nothing: the line goes straight on to the next one."""

BREAK = np.inf
"""A point where the line breaks: the samples there are no numbers."""

EXACT = 2**53
"""Whole numbers up to this one are float64 numbers without rounding."""

EARLIEST, LATEST = -(2**63) + 2**52, 2**63 - 2**52
"""Times are brought between these (in nanoseconds): the ends of columns must be int64 numbers, too."""

NEVER = np.iinfo(np.int64).min
"""The column of a series that has no samples yet."""


class Columns:
    """The newest columns of several series on one time axis, in a ring that is sent as it stands.

    A column is a span of time, the same for every series. It has two points: the smallest and the largest sample in it,
    in the order in which the line crosses them. So a single sample among a million stays visible, at its full height,
    and less than a column from its time. The points are float64, so every sample of a floating-point type is there
    exactly. Whole numbers beyond 2**53 are kept as exact differences from a base of their series.

    Parameters
    ----------
    n_series : int
        Number of series.
    n_columns : int
        Columns of the ring.
    span_ns : int
        Time that all columns cover (in nanoseconds).

    Attributes
    ----------
    points : ndarray of shape (n_series, 2 * n_columns), float64
        The ring. The points of column `c` are at ``2 * (c % n_columns)``.
    base : list of int or None
        What to add to the points of each series: 0 but for whole numbers beyond 2**53; None before the first number.
    width : int
        Time of one column (in nanoseconds); column `c` begins at ``c * width`` since the epoch.
    end : int or None
        The column behind the newest one; None before the first sample.
    """

    def __init__(self, n_series: int, n_columns: int, span_ns: int) -> None:
        self.n_columns = n_columns
        self.width = max(2, span_ns // n_columns)
        self.points = np.full((n_series, 2 * n_columns), EMPTY)
        self.base: list[int | None] = [None] * n_series
        self.end: int | None = None
        self._wide = np.zeros(n_series, np.bool_)  # series of whole numbers that float64 rounds
        # The newest column of each series: it, and those before it, may get more samples.
        self._newest = np.full(n_series, NEVER)

    def add(self, rows: slice, time_ns: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add samples to some of the series.

        Parameters
        ----------
        rows : slice
            The series, which share their times.
        time_ns : ndarray of shape (n_samples,)
            Their times (in nanoseconds since the epoch), never falling. They may be older than samples that were added
            before; what is older than the ring is left out.
        values : ndarray of shape (n_samples, n_rows)
            The samples. A column in which none is a finite number breaks the line.
        """
        # Few, large operations: each of them lets go of the GIL, and a busy cell returns it only after a while.
        if time_ns[0] < EARLIEST or time_ns[-1] > LATEST:
            time_ns = np.clip(time_ns, EARLIEST, LATEST)
        first, last = int(time_ns[0]) // self.width, int(time_ns[-1]) // self.width
        oldest = self._advance(last + 1) - self.n_columns
        if first < oldest:
            keep = int(np.searchsorted(time_ns, max(oldest * self.width, EARLIEST)))
            if keep == len(time_ns):
                return
            time_ns, values, first = time_ns[keep:], values[keep:], int(time_ns[keep]) // self.width
        column, starts, ends = self._group(time_ns, first, last)
        values = values if values.dtype.kind != "b" else values.view(np.uint8)
        low, high = _extremes(values, starts)
        if values.dtype.kind == "f" and not (np.isfinite(low).all() and np.isfinite(high).all()):
            values = np.where(np.isfinite(values), values, np.nan)
            low, high = _extremes(values, starts)
        falling = values[ends - 1] < values[starts]
        alone = (ends - starts == 1).astype(np.int64)
        alone += alone * (time_ns[starts] - column * self.width >= self.width // 2)
        self._begin(rows, low)
        self._store(rows, column, self._offsets(rows, low), self._offsets(rows, high), falling, alone)

    def _group(
        self, time_ns: NDArray[np.int64], first: int, last: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The columns that have samples, and where in the samples each begins and ends."""
        if last - first < len(time_ns):
            column = np.arange(first, last + 2)
            bounds = np.searchsorted(time_ns, column * self.width)
            filled = bounds[1:] > bounds[:-1]
            return column[:-1][filled], bounds[:-1][filled], bounds[1:][filled]
        each = time_ns // self.width
        starts = np.flatnonzero(np.concatenate(([True], each[1:] != each[:-1])))
        return each[starts], starts, np.concatenate((starts[1:], [len(each)]))

    def _store(
        self,
        rows: slice,
        column: NDArray[np.int64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        falling: NDArray[np.bool_],
        alone: NDArray[np.int64],
    ) -> None:
        """Write columns into the ring; `alone` is 1 or 2 where the only sample is in the first or second half."""
        points = self.points[rows]
        at = 2 * (column % self.n_columns)
        newest = int(self._newest[rows].max())
        if column[0] <= newest:  # these may hold samples already
            old = np.searchsorted(column, newest, "right")
            early, late = points[:, at[:old]].T, points[:, at[:old] + 1].T
            early, late = np.where(early == BREAK, np.nan, early), np.where(late == BREAK, np.nan, late)
            was_low, was_high = np.fmin(early, late), np.fmax(early, late)
            was = ~np.isnan(was_low)
            falling[:old] = np.where(was, low[:old] < was_low, falling[:old])
            low[:old], high[:old] = np.fmin(low[:old], was_low), np.fmax(high[:old], was_high)
            alone[:old][was.any(axis=1)] = 0
        self._newest[rows] = np.maximum(self._newest[rows], column[-1])
        none = np.isnan(low)
        early = np.where(none, BREAK, np.where(falling, high, low))
        late = np.where(none, BREAK, np.where(falling, low, high))
        early[alone == 2] = EMPTY
        late[alone == 1] = EMPTY
        points[:, at] = early.T
        points[:, at + 1] = late.T

    def _begin(self, rows: slice, low: NDArray[Any]) -> None:
        """Give each series a base with its first samples: large whole numbers are told apart only from one nearby."""
        for k, row in enumerate(range(*rows.indices(len(self.base)))):
            if self.base[row] is None:
                self._wide[row] = _is_wide(low.dtype)
                first = int(low[0, k]) if self._wide[row] else 0
                self.base[row] = first if abs(first) > EXACT // 2 else 0

    def _offsets(self, rows: slice, values: NDArray[Any]) -> NDArray[np.float64]:
        """Differences from the bases: exact ones of whole numbers, as long as they are at most 2**53."""
        if not _is_wide(values.dtype):
            with np.errstate(over="ignore"):  # a long double beyond the doubles is drawn as infinite
                return values.astype(np.float64)  # a base, if there is one, was taken from them already
        base = [b or 0 for b in self.base[rows]]
        about = values.astype(np.float64) - np.array(base, np.float64)
        # Modulo 2**64, which is right wherever the difference is an int64 number.
        exact = values.astype(np.uint64) - np.array([b % 2**64 for b in base], np.uint64)
        return np.where(np.abs(about) < 2.0**62, exact.view(np.int64).astype(np.float64), about)

    def settle(self) -> None:
        """Move each base to its series, if that has moved so far away that its differences are rounded."""
        for row, points in enumerate(self.points):
            base = self.base[row]
            number = np.isfinite(points)
            if base is None or not self._wide[row] or not number.any():
                continue
            nearest = float(points[number][np.argmin(np.abs(points[number]))])
            if abs(nearest) > EXACT:
                self.base[row] = base + int(nearest)
                points[number] -= nearest

    def _advance(self, end: int) -> int:
        """Make room up to the column before `end`; what falls out at the other end is forgotten."""
        if self.end is not None and end <= self.end:
            return self.end
        if self.end is None or end - self.end >= self.n_columns:
            self.points[:] = EMPTY
        else:
            at, until = 2 * (self.end % self.n_columns), 2 * (end % self.n_columns)
            if at < until:
                self.points[:, at:until] = EMPTY
            else:
                self.points[:, at:] = EMPTY
                self.points[:, :until] = EMPTY
        self.end = end
        return end

    def resampled(self, span_ns: int) -> Columns:
        """Return the same series in columns that cover another span (in nanoseconds)."""
        other = Columns(len(self.points), self.n_columns, span_ns)
        other.base, other._wide = list(self.base), self._wide.copy()
        if self.end is None:
            return other
        order = (2 * (self.end % self.n_columns) + np.arange(2 * self.n_columns)) % (2 * self.n_columns)
        first = (self.end - self.n_columns) * self.width
        time_ns = first + np.arange(2 * self.n_columns) * self.width // 2
        for row, points in enumerate(self.points[:, order]):
            some = ~np.isnan(points)
            if some.any():
                other.add(slice(row, row + 1), time_ns[some], points[some][:, None])
        return other


def _extremes(values: NDArray[Any], starts: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The smallest and the largest number of each group of samples; NaN where there is none."""
    return np.fmin.reduceat(values, starts, axis=0), np.fmax.reduceat(values, starts, axis=0)


def _is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether it has whole numbers that float64 rounds."""
    return dtype.kind in "iu" and dtype.itemsize == 8
