"""A batch as a figure for a paper; needs matplotlib, the ``[plot]`` extra."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from labhub.datablock.batch import Batch
from labhub.datablock.series import choose, samples
from labhub.errors import InvalidArgument
from labhub.schema import VALUE
from labhub.words import visible

WIDTH = 6.3
PANEL_HEIGHT = 2.4

LARGE = 1e300
"""Larger numbers are drawn divided by it: Matplotlib fails on an axis that is nearly as wide as all numbers."""

EXACT = 2**53
"""Whole numbers up to this one are float64 numbers without rounding."""


class BatchFigure(Figure):
    """A figure that shows itself in a notebook, once, whatever backend is active."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Figure({len(self.axes)} axes)"


def figure_of(batch: Batch, fields: Sequence[str]) -> BatchFigure:
    """Draw lines in the order of their times, one panel for each unit; `Batch.plot` is the friendlier form."""
    chosen = choose(batch.channel, batch.schema, fields)
    if not len(batch):
        raise InvalidArgument(f"the batch of {batch.channel!r} is empty; there is nothing to draw")
    time_ns, values = samples(batch, chosen)
    order = np.argsort(time_ns, kind="stable")
    time_ns, values = time_ns[order], values[order]
    begin = time_ns[0]
    # As unsigned numbers, because times may be further apart than an int64 number of nanoseconds.
    seconds = (time_ns.astype(np.uint64) - begin.astype(np.uint64)) / 1e9
    units = list(dict.fromkeys(s.unit for s in chosen))
    figure = BatchFigure(figsize=(WIDTH, 0.6 + PANEL_HEIGHT * len(units)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(units), 1, sharex=True))
    for panel, unit in zip(panels, units, strict=True):
        columns = [k for k, s in enumerate(chosen) if s.unit == unit]
        _draw(panel, seconds, values[:, columns], [chosen[k].label for k in columns], batch.channel, unit)
    start = str(begin.astype("datetime64[ns]").astype("datetime64[ms]")).replace("T", " ")
    panels[-1].set_xlabel(f"time (s) after {start} UTC")
    return figure


def _draw(
    panel: Axes, seconds: NDArray[np.float64], values: NDArray[Any], labels: list[str], channel: str, unit: str
) -> None:
    """Draw the lines of one unit."""
    numbers, how = _drawable(values)
    panel.plot(seconds, numbers, linewidth=1.0, marker="o" if len(seconds) == 1 else "", markersize=4)
    name = labels[0] if len(labels) == 1 else VALUE
    name = (channel if name == VALUE and len(labels) == 1 else name) + how
    _literal(panel.set_ylabel(f"{name} ({unit})" if unit else name))
    panel.spines[["top", "right"]].set_visible(False)
    if len(labels) == 1:
        return
    # By number first: Matplotlib leaves out a name that begins with an underscore.
    places = [str(k) for k in range(len(labels))]
    legend = panel.legend(panel.lines, places, frameon=False, fontsize="small", ncols=min(4, len(labels)))
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        _literal(text)


def _drawable(values: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
    """Values that Matplotlib can tell apart and place, and what was done to them, in words."""
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        low, high = int(values.min()), int(values.max())
        if high - low <= EXACT < max(abs(low), abs(high)):
            above = values.astype(np.uint64) - np.uint64(low % 2**64)
            return above.astype(np.float64), f" {'+' if low < 0 else '-'} {abs(low)}"
    numbers = values.astype(np.float64)
    largest = np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0)
    return (numbers / LARGE, f" / {LARGE:g}") if largest > LARGE else (numbers, "")


def _literal(text: Text) -> None:
    """Draw the user's names and units as they are: to Matplotlib a ``$`` begins a formula, and a line break is one."""
    text.set_text(visible(text.get_text()))
    text.set_parse_math(False)
    text.set_usetex(False)
