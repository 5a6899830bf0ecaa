"""Decimation for plots: many samples become two points per column, and no peak is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = np.float32(np.nan)
"""A point where there is nothing: the line goes straight on to the next one."""

BREAK = np.float32(np.inf)
"""A point where the line breaks: the samples there are no numbers."""


class Columns:
    """The newest columns of several series on one time axis, in a ring that is sent as it stands.

    A column is a span of time, the same for every series. It has two points: the smallest and the largest sample in it,
    in the order in which the line crosses them. So a single sample among a million stays visible, at its full height,
    and less than a column from its time. The ring holds float32 numbers relative to a base of each series, so that
    small changes of a large value are not rounded away.

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
    points : ndarray of shape (n_series, 2 * n_columns), float32
        The ring. The points of column `c` are at ``2 * (c % n_columns)``.
    base : ndarray of shape (n_series,), float64
        What to add to the points of each series.
    width : int
        Time of one column (in nanoseconds); column `c` begins at ``c * width`` since the epoch.
    end : int
        The column behind the newest one; 0 before the first sample.
    """

    def __init__(self, n_series: int, n_columns: int, span_ns: int) -> None:
        self.n_columns = n_columns
        self.width = max(2, span_ns // n_columns)
        self.points = np.full((n_series, 2 * n_columns), EMPTY)
        self.base = np.full(n_series, np.nan)
        self.end = 0
        # The column that each series is in, and what it holds so far: it may go on with the next samples.
        self._open = np.zeros(n_series, np.int64)
        self._low = np.full(n_series, np.nan)
        self._high = np.full(n_series, np.nan)

    def add(self, rows: slice, time_ns: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add samples to some of the series.

        Parameters
        ----------
        rows : slice
            The series, which share their times.
        time_ns : ndarray of shape (n_samples,)
            Their times (in nanoseconds since the epoch), never falling. What is older than the ring is left out.
        values : ndarray of shape (n_samples, n_rows)
            The samples. A column in which none is a finite number breaks the line.
        """
        # Few, large operations: each of them lets go of the GIL, and a busy cell returns it only after a while.
        first, last = int(time_ns[0]) // self.width, int(time_ns[-1]) // self.width
        self._advance(last + 1)
        oldest = self.end - self.n_columns
        if first < oldest:
            keep = int(np.searchsorted(time_ns, oldest * self.width))
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
        self._store(rows, column, low, high, falling, alone)

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
        goes_on = (self._open[rows] == column[0]) & ~np.isnan(self._low[rows])
        if goes_on.any():
            falling[0] = np.where(goes_on, low[0] < self._low[rows], falling[0])
            low[0] = np.where(goes_on, np.fmin(low[0], self._low[rows]), low[0])
            high[0] = np.where(goes_on, np.fmax(high[0], self._high[rows]), high[0])
            alone[0] = 0
        self._open[rows], self._low[rows], self._high[rows] = column[-1], low[-1], high[-1]
        self._begin(rows, low)
        at = 2 * (column % self.n_columns)
        none = np.isnan(low)
        shift = self.base[rows]
        early = np.where(none, BREAK, np.where(falling, high, low) - shift)
        late = np.where(none, BREAK, np.where(falling, low, high) - shift)
        early[alone == 2] = EMPTY
        late[alone == 1] = EMPTY
        points = self.points[rows]
        points[:, at] = early.T
        points[:, at + 1] = late.T

    def _begin(self, rows: slice, low: NDArray[np.float64]) -> None:
        """Give each series its first number as its base."""
        for k, row in enumerate(range(*rows.indices(len(self.base)))):
            if np.isnan(self.base[row]) and len(numbers := low[:, k][~np.isnan(low[:, k])]):
                self.base[row] = numbers[0]

    def settle(self) -> None:
        """Move each base to its series, if that has moved so far away that float32 would round it visibly."""
        for row, points in enumerate(self.points):
            number = np.isfinite(points)
            if not number.any():
                continue
            low, high = float(points[number].min()), float(points[number].max())
            if abs(low + high) / 2 > 1000 * (high - low):
                base = self.base[row] + (low + high) / 2
                points[number] = (points[number].astype(np.float64) + self.base[row] - base).astype(np.float32)
                self.base[row] = base

    def _advance(self, end: int) -> None:
        """Make room up to the column before `end`; what falls out at the other end is forgotten."""
        if end <= self.end:
            return
        if end - self.end >= self.n_columns:
            self.points[:] = EMPTY
        else:
            at, until = 2 * (self.end % self.n_columns), 2 * (end % self.n_columns)
            if at < until:
                self.points[:, at:until] = EMPTY
            else:
                self.points[:, at:] = EMPTY
                self.points[:, :until] = EMPTY
        self.end = end

    def resampled(self, span_ns: int) -> Columns:
        """Return the same series in columns that cover another span (in nanoseconds)."""
        other = Columns(len(self.points), self.n_columns, span_ns)
        order = (2 * (self.end % self.n_columns) + np.arange(2 * self.n_columns)) % (2 * self.n_columns)
        first = (self.end - self.n_columns) * self.width
        time_ns = first + np.arange(2 * self.n_columns) * self.width // 2
        for row, points in enumerate(self.points[:, order]):
            some = ~np.isnan(points)
            if some.any():
                values = points[some].astype(np.float64)[:, None] + self.base[row]
                other.add(slice(row, row + 1), time_ns[some], values)
        return other


def _extremes(values: NDArray[Any], starts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest and the largest number of each group of samples; NaN where there is none."""
    low = np.fmin.reduceat(values, starts, axis=0).astype(np.float64)
    return low, np.fmax.reduceat(values, starts, axis=0).astype(np.float64)
