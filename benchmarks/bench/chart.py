"""The picture of the README: who moves how much."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.results import Result

SHOWN = (
    "64 B, one by one",
    "64 B, batches of 1024",
    "4 KiB, one by one",
    "64 KiB, one by one",
    "1 MiB, one by one",
    "8 MiB, one by one",
)
COLOURS = {"labhub": "#0b6e99", "peer": "#b8860b", "limit": "#8a8a8a"}
MARKS = {"labhub": "D", "peer": "o", "limit": "|"}
NAMES = {"labhub": "labhub", "peer": "a peer in Python", "limit": "a limit: C++, or the harness alone"}


def panel(axes: Axes, result: Result, name: str) -> None:
    """Draw one workload: medians and quartiles, fastest on top. Points, as a bar has no foot on a logarithmic axis."""
    nbytes = result.workloads[name].nbytes
    figures = {who: np.asarray(values) * nbytes / 1e6 for who, values in result.figures[name].items()}
    figures = {who: values for who, values in figures.items() if not np.isnan(values).all()}
    order = sorted(figures, key=lambda who: float(np.nanmedian(figures[who])))
    low, middle, high = (np.array([np.nanquantile(figures[who], q) for who in order]) for q in (0.25, 0.5, 0.75))
    for place, who in enumerate(order):
        role = result.roles[who]
        spread = ([middle[place] - low[place]], [high[place] - middle[place]])
        axes.errorbar(middle[place], place, xerr=spread, fmt=MARKS[role], color=COLOURS[role], ms=7, lw=1.2)
    axes.set_yticks(range(len(order)), order)
    axes.grid(axis="x", which="both", lw=0.4, alpha=0.5)
    axes.set_xscale("log")
    axes.set_title(name, fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel("MB/s, medians and quartiles", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(result: Result, path: Path) -> None:
    """Write the picture, of those workloads of `SHOWN` that were measured."""
    shown = [name for name in SHOWN if name in result.runs]
    if not shown:
        return
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        columns = min(2, len(shown))
        lines = -(-len(shown) // columns)
        figure = Figure(figsize=(5.2 * columns, 2.9 * lines), layout="constrained")
        for axes, name in zip(figure.subplots(lines, columns, squeeze=False).flat, shown, strict=False):
            panel(axes, result, name)
        for axes in figure.axes[len(shown) :]:
            axes.remove()
        figure.suptitle("One producer, one consumer, two processes, every slot verified", fontsize=11)
        key = [Line2D([], [], marker=MARKS[role], color=COLOURS[role], ls="", label=NAMES[role]) for role in MARKS]
        figure.legend(handles=key, loc="outside lower center", ncols=len(key), fontsize=8, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
