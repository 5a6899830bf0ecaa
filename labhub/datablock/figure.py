"""A batch as a figure for a paper; needs matplotlib, the ``[plot]`` extra."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from labhub.datablock.batch import Batch
from labhub.datablock.series import choose, samples
from labhub.errors import InvalidArgument
from labhub.schema import VALUE

WIDTH = 6.3
PANEL_HEIGHT = 2.4


class BatchFigure(Figure):
    """A figure that shows itself in a notebook, once, whatever backend is active."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

    def __repr__(self) -> str:
        return f"Figure({len(self.axes)} axes)"


def figure_of(batch: Batch, fields: Sequence[str]) -> BatchFigure:
    """Draw lines over time, one panel for each unit; `Batch.plot` is the friendlier form."""
    chosen = choose(batch.channel, batch.schema, fields)
    if not len(batch):
        raise InvalidArgument(f"the batch of {batch.channel!r} is empty; there is nothing to draw")
    time_ns, values = samples(batch, chosen)
    begin = time_ns.min()
    seconds = (time_ns - begin) / 1e9
    units = list(dict.fromkeys(s.unit for s in chosen))
    figure = BatchFigure(figsize=(WIDTH, 0.6 + PANEL_HEIGHT * len(units)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(units), 1, sharex=True))
    for panel, unit in zip(panels, units, strict=True):
        mine = [(k, s) for k, s in enumerate(chosen) if s.unit == unit]
        for k, s in mine:
            panel.plot(seconds, values[:, k], linewidth=1.0, label=s.label)
        name = mine[0][1].label if len(mine) == 1 else VALUE
        name = batch.channel if name == VALUE and len(mine) == 1 else name
        panel.set_ylabel(f"{name} ({unit})" if unit else name)
        panel.spines[["top", "right"]].set_visible(False)
        if len(mine) > 1:
            panel.legend(frameon=False, fontsize="small", ncols=min(4, len(mine)))
    start = str(begin.astype("datetime64[ns]").astype("datetime64[ms]")).replace("T", " ")
    panels[-1].set_xlabel(f"time (s) after {start} UTC")
    return figure
