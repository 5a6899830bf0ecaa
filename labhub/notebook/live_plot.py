"""A live plot of channels over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from labhub.arguments import checked_text
from labhub.datablock.batch import Batch
from labhub.datablock.series import Series, choose, samples
from labhub.errors import ClosedError, InvalidArgument
from labhub.hub import Channel, Hub
from labhub.hub.connecting import given_or_default
from labhub.notebook.columns import Columns
from labhub.notebook.live import LiveWidget
from labhub.notebook.source import Source
from labhub.schema import VALUE

SETTLE_FRAMES = 30
"""After how many frames it is looked whether float32 still tells the samples apart."""

Wanted = str | Channel | Sequence[Any]


class LivePlot(LiveWidget):
    """A plot of channels over time that moves while they are written, and while cells run.

    Each channel is read through a lossy reader of its own, so the plot never slows a producer, and it shows with a mark
    where it lost slots. Channels of any rates share the time axis; a peak of a single sample stays visible at any rate.
    Drag in it to zoom; pause, window and the choice of lines are on the page. When a producer is gone it says so, and
    it goes on when the channel is back.

    Parameters
    ----------
    *wanted : str, Channel or sequence
        What to draw: a channel, or a channel followed by the names of fields or lines, such as
        ``("ecg", "lead 1", "lead 2")``. Slots that are blocks of samples give one line for each column, named after its
        dim.
    hub : Hub, optional
        Where the channels are; that of ``labhub.connect()`` unless given.
    window : float
        Time that it shows (in seconds). It can be assigned later, too.
    title : str
        What to write above it; the names of the channels unless given.
    height : int
        Of the plot (in pixels); its width is that of the output.
    columns : int
        Columns in which samples are gathered; each shows its smallest and its largest one.

    Raises
    ------
    InvalidArgument
        A field is not there or not numeric (the message says what can be drawn), or a number is out of range.
    ChannelNotFound
        The broker does not know a channel; the message names the closest names.
    BrokerUnreachable, SegmentAccessError, IncompatibleSegment

    Attributes
    ----------
    window : float
        Time that it shows (in seconds).

    Examples
    --------
    ``labhub.LivePlot("pump.pressure", ("ecg", "lead 1"), window=30)``, or ``hub["pump.pressure"].plot()``
    """

    NAME = "live_plot"

    window = traitlets.Float(10.0, help="time that it shows, in seconds").tag(sync=True)
    share = traitlets.Float(1.0, help="part of the window that the page shows").tag(sync=True)
    height = traitlets.Int(280, help="of the plot, in pixels").tag(sync=True)
    series: traitlets.List[Any] = traitlets.List(help="label, unit and channel of each line").tag(sync=True)

    def __init__(
        self,
        *wanted: Wanted,
        hub: Hub | None = None,
        window: float = 10.0,
        title: str = "",
        height: int = 280,
        columns: int = 1000,
    ) -> None:
        chosen = _wanted(wanted)
        if isinstance(columns, bool) or not isinstance(columns, int) or not 10 <= columns <= 100_000:
            raise InvalidArgument(f"columns is a whole number from 10 to 100000, not {columns!r}")
        if isinstance(height, bool) or not isinstance(height, int) or not 80 <= height <= 4000:
            raise InvalidArgument(f"height is a number of pixels from 80 to 4000, not {height!r}")
        super().__init__(
            given_or_default(hub),
            window=_checked_window(window),
            title=checked_text("title", title) or ", ".join(chosen),
            height=height,
        )
        self._wanted_fields = chosen
        self._n_columns = columns
        self._lines: list[_Lines] = []
        self._columns: list[Columns] = []
        self._losses: list[list[float]] = []
        self._frames_drawn = 0
        self._begin()

    @traitlets.validate("window")
    def _valid_window(self, proposal: dict[str, Any]) -> float:
        return _checked_window(proposal["value"])

    @traitlets.validate("share")
    def _valid_share(self, proposal: dict[str, Any]) -> float:
        return min(1.0, max(0.001, float(proposal["value"])))

    # ------------------------------------------------------------------------------------------------- the thread's

    def _open(self) -> None:
        self._release()
        for channel, fields in self._wanted_fields.items():
            source = Source(self._hub, channel)
            self._lines.append(_Lines(source))
            self._lines[-1].choose(fields)
        begin = 0
        for lines in self._lines:
            lines.rows = slice(begin, begin + len(lines.chosen))
            begin = lines.rows.stop
        described = [line for lines in self._lines for line in lines.described(len(self._lines) > 1)]
        if described != self.series:
            self.series = described
        self._columns = [Columns(begin, self._n_columns, self._span())]
        self._losses = []
        for lines in self._lines:
            self._draw(lines, lines.source.history(self.window))

    def _release(self) -> None:
        for lines in self._lines:
            lines.source.close()
        self._lines = []

    def _update(self) -> tuple[dict[str, Any], list[bytes]] | None:
        new = self._fit_columns()
        for lines in self._lines:
            for batch in lines.source.read():
                if batch.schema is not lines.schema and not lines.same(batch.schema):
                    self._open()
                    return self._picture_again()
                self._draw(lines, batch)
                new = True
            if lines.source.closed:
                raise ClosedError(f"the reader of {lines.source.channel!r} was closed")
        return self._picture_again() if new else None

    def _draw(self, lines: _Lines, batch: Batch) -> None:
        if not len(batch):
            return
        time_ns, values = samples(batch, lines.chosen)
        if not len(time_ns):
            return
        time_ns = lines.in_order(time_ns)
        if batch.lost:
            self._mark_loss(int(time_ns[0]), batch.lost)
        for columns in self._columns:
            columns.add(lines.rows, time_ns, values)
        lines.last = [_plain(v) for v in values[-1]]

    def _mark_loss(self, at_ns: int, count: int) -> None:
        """Remember a loss; those in one column are one mark."""
        width = self._columns[0].width
        if self._losses and int(self._losses[-1][0] * 1e9) // width == at_ns // width:
            self._losses[-1][1] += count
        else:
            self._losses.append([at_ns / 1e9, count])

    def _fit_columns(self) -> bool:
        """Let the columns cover the window, and finer ones the part of it that the page shows."""
        changed = False
        full, span = self._columns[0], self._span()
        if full.width != max(2, span // self._n_columns):
            self._columns, changed = [full.resampled(span)], True
        part = round(span * self.share)
        fine = self._columns[1] if len(self._columns) > 1 else None
        if self.share < 1.0 and (fine is None or fine.width != max(2, part // self._n_columns)):
            self._columns[1:], changed = [self._columns[0].resampled(part)], True
        elif self.share == 1.0 and fine is not None:
            del self._columns[1:]
            changed = True
        return changed

    def _picture_again(self) -> tuple[dict[str, Any], list[bytes]] | None:
        columns = self._columns[-1]
        if not columns.end:
            return None
        self._frames_drawn += 1
        if self._frames_drawn % SETTLE_FRAMES == 0:
            for each in self._columns:
                each.settle()
        n = columns.points.shape[1]
        begin_s = (columns.end - columns.n_columns) * columns.width / 1e9
        oldest_s = self._columns[0].end * self._columns[0].width / 1e9 - self.window
        self._losses = [mark for mark in self._losses if mark[0] >= oldest_s]
        meta = {
            "n": n,
            "at": 2 * (columns.end % columns.n_columns),
            "t0": begin_s,
            "dt": columns.width / 2e9,
            "base": [0.0 if math.isnan(b) else b for b in columns.base.tolist()],
            "last": [value for lines in self._lines for value in lines.last],
            "losses": [list(mark) for mark in self._losses],
            "lost": sum(lines.source.lost for lines in self._lines),
        }
        # A copy: the ring goes on while the message is on its way.
        return meta, [columns.points.tobytes()]

    def _gone(self) -> str:
        gone = {lines.source.channel: lines.source.gone for lines in self._lines}
        return ", ".join(f"{channel}: producer gone ({why})" for channel, why in gone.items() if why)

    def _span(self) -> int:
        return round(self.window * 1e9)

    def __repr__(self) -> str:
        parts: dict[str, list[str]] = {}
        for line in self.series:
            parts.setdefault(line["channel"], []).append(line["name"])
        return "LivePlot(" + "; ".join(f"{channel}: {', '.join(names)}" for channel, names in parts.items()) + ")"


class _Lines:
    """The lines of one channel: where its samples go."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.schema = source.schema
        self.chosen: list[Series] = []
        self.rows = slice(0, 0)
        self.last: list[float | str | None] = []
        self._newest_ns = 0

    def choose(self, fields: Sequence[str]) -> None:
        self.chosen = choose(self.source.channel, self.schema, fields)
        # In the order in which `samples` gives them: field by field.
        paths = list(dict.fromkeys(s.field for s in self.chosen))
        self.chosen.sort(key=lambda s: paths.index(s.field))
        self.last = [None] * len(self.chosen)

    def same(self, schema: Any) -> bool:
        """Whether slots of a schema are drawn as before; if so, it is the one to expect."""
        if schema.to_json() != self.schema.to_json():
            return False
        self.schema = schema
        return True

    def in_order(self, time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times that never fall: blocks may overlap by the jitter of their clock, and producers follow each other."""
        if time_ns[0] < self._newest_ns:
            time_ns = np.maximum(time_ns, self._newest_ns)
        if self.schema.sample_rate is not None:
            time_ns = np.maximum.accumulate(time_ns)
        self._newest_ns = int(time_ns[-1])
        return time_ns

    def described(self, several: bool) -> list[dict[str, str]]:
        channel = self.source.channel
        full = [channel if s.label == VALUE else f"{channel} {s.label}" for s in self.chosen]
        alone = [channel if s.label == VALUE else s.label for s in self.chosen]
        return [
            {"channel": channel, "name": s.label, "label": label, "unit": s.unit}
            for s, label in zip(self.chosen, full if several else alone, strict=True)
        ]


def _wanted(wanted: Sequence[Wanted]) -> dict[str, list[str]]:
    """Channels, each with the names of fields that were asked for; none for all of them."""
    if not wanted:
        raise InvalidArgument("a plot needs a channel, for example LivePlot('pump.pressure')")
    chosen: dict[str, list[str]] = {}
    for item in wanted:
        several = tuple(item) if isinstance(item, list | tuple) else (item,)
        channel, *fields = several or ("",)
        name = channel.name if isinstance(channel, Channel) else channel
        if not isinstance(name, str) or not all(isinstance(field, str) for field in fields):
            raise InvalidArgument(f"{item!r} is no channel; give its name, or a tuple of its name and names of fields")
        chosen.setdefault(name, []).extend(fields)
    return chosen


def _checked_window(window: object) -> float:
    if isinstance(window, bool) or not isinstance(window, int | float | np.number) or not 1e-3 <= window <= 1e6:
        raise InvalidArgument(f"window is a time from 0.001 to 1000000 seconds, not {window!r}")
    return float(window)


def _plain(value: Any) -> float | str | None:
    """A number as JSON can carry it, whole ones up to the last digit."""
    number = value.item()
    if isinstance(number, float) and not math.isfinite(number):
        return None if math.isnan(number) else str(number)
    return float(number) if isinstance(number, bool) else number
