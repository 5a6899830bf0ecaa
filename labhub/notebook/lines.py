"""The lines of one channel of a plot: which samples go where, in the order of their times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import Batch
from labhub.datablock.series import Series, choose, samples
from labhub.notebook.columns import EXACT
from labhub.notebook.source import Source
from labhub.schema import TIME, VALUE, Schema
from labhub.words import visible


class Lines:
    """The lines of one channel.

    Parameters
    ----------
    source : Source
        The channel.
    fields : sequence of str
        Names of the fields or lines to draw; all of them if there are none.
    begin : int
        Row of the first line in the plot's columns.

    Attributes
    ----------
    chosen : list of Series
        The lines.
    rows : slice
        Their rows in the plot's columns.
    last : list of float, str or None
        The newest value of each line, as JSON can carry it.
    now_ns : int or None
        Time of the sample that was written last (in nanoseconds since the epoch); None before the first one.
    """

    def __init__(self, source: Source, fields: Sequence[str], begin: int) -> None:
        self.source = source
        self.schema: Schema = source.schema
        self.chosen = choose(source.channel, self.schema, fields)
        # In the order in which `samples` gives them: field by field.
        paths = list(dict.fromkeys(s.field for s in self.chosen))
        self.chosen.sort(key=lambda s: paths.index(s.field))
        self.rows = slice(begin, begin + len(self.chosen))
        self.last: list[float | str | None] = [None] * len(self.chosen)
        self.now_ns: int | None = None
        self._groups = _exact_groups(self.schema.dtype, self.chosen)

    def same(self, schema: Schema) -> bool:
        """Whether slots of a schema are drawn as before; if so, it is the one to expect."""
        if schema.to_json() != self.schema.to_json():
            return False
        self.schema = schema
        return True

    @property
    def _jitter_ns(self) -> int:
        """Blocks may overlap by so much without a fall: the clock that stamps them is read early or late."""
        if self.schema.sample_rate is None:
            return 0
        return round(self.schema.shape[self.schema.dims.index(TIME)] / self.schema.sample_rate * 1e9)

    def take(self, batch: Batch) -> tuple[NDArray[np.int64], int, list[tuple[slice, NDArray[Any]]]]:
        """Take the samples of a batch, in the order in which they were written.

        Returns
        -------
        time_ns : ndarray of shape (n_samples,)
            Their times. They fall only where the channel's times fall by more than the jitter of blocks.
        fall_ns : int
            By how much the times fall, at most (in nanoseconds); 0 if they do not.
        values : list of (slice, ndarray of shape (n_samples, n_rows))
            The samples of each group of rows.
        """
        parts = [(rows, *samples(batch, group)) for rows, group in self._grouped()]
        time_ns = parts[0][1]
        values = [(rows, part) for rows, _, part in parts]
        if not len(time_ns):
            return time_ns, 0, values
        self.last = [_plain(v) for _, part in values for v in part[-1]]
        rising = np.maximum.accumulate(time_ns)
        if self.now_ns is not None and time_ns[0] < self.now_ns:
            rising = np.maximum(rising, self.now_ns)
        # As unsigned numbers, because times may be further apart than an int64 number of nanoseconds.
        fall = int((rising.astype(np.uint64) - time_ns.astype(np.uint64)).max())
        if fall <= self._jitter_ns:
            time_ns, fall = rising, 0
        self.now_ns = int(time_ns[-1])
        return time_ns, fall, values

    def _grouped(self) -> Iterator[tuple[slice, list[Series]]]:
        begin = self.rows.start
        for group in self._groups:
            yield slice(begin, begin + len(group)), group
            begin += len(group)

    def described(self, several: bool) -> list[dict[str, str]]:
        """What the page writes at each line; with the name of the channel if there are several."""
        channel = self.source.channel
        full = [channel if s.label == VALUE else f"{channel} {s.label}" for s in self.chosen]
        alone = [channel if s.label == VALUE else s.label for s in self.chosen]
        return [
            {"channel": channel, "name": s.label, "label": visible(label), "unit": visible(s.unit)}
            for s, label in zip(self.chosen, full if several else alone, strict=True)
        ]


def _exact_groups(dtype: np.dtype[Any], chosen: Sequence[Series]) -> list[list[Series]]:
    """Group lines so that samples of a group have a common dtype that rounds none of them."""
    groups: list[tuple[list[Series], np.dtype[Any]]] = []
    for path, same in groupby(chosen, key=lambda s: s.field):
        mine = dtype
        for name in path:
            mine = mine[name]
        together = np.result_type(groups[-1][1], mine.base) if groups else mine.base
        both = {groups[-1][1], mine.base} if groups else set()
        if groups and not (together.kind == "f" and any(d.kind in "iu" and d.itemsize == 8 for d in both)):
            groups[-1] = ([*groups[-1][0], *same], together)
        else:
            groups.append((list(same), mine.base))
    return [group for group, _ in groups]


def _plain(value: Any) -> float | str | None:
    """A number as JSON can carry it; as text where a page would round it, or JSON has no word for it."""
    number = value.item()
    if isinstance(number, int):
        return str(number) if abs(number) > EXACT else number if not isinstance(number, bool) else float(number)
    number = float(number)  # a longdouble, too
    return number if math.isfinite(number) else None if math.isnan(number) else str(number)
