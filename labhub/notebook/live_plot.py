"""A live plot of channels over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from labhub.arguments import checked_text
from labhub.datablock.batch import Batch
from labhub.errors import ClosedError, InvalidArgument
from labhub.hub import Channel, Hub
from labhub.hub.connecting import given_or_default
from labhub.notebook.columns import EARLIEST, EXACT, LATEST, Columns
from labhub.notebook.lines import Lines
from labhub.notebook.live import LiveWidget
from labhub.notebook.source import Source

SETTLE_FRAMES = 30
"""After how many frames it is looked whether the bases of large whole numbers are still near them."""

SLACK_NS = 1_000_000_000
"""Channels of different rates are this far behind each other without a word (in nanoseconds)."""

Wanted = str | Channel | Sequence[Any]


class LivePlot(LiveWidget):
    """A plot of channels over time that moves while they are written, and while cells run.

    Each channel is read through a lossy reader of its own, so the plot never slows a producer, and it shows with a mark
    where it lost slots. Channels of any rates share the time axis; a peak of a single sample stays visible at any rate.
    Drag in it to zoom; pause, window and the choice of lines are on the page. When a producer is gone it says so, and
    it goes on when the channel is back.

    Samples are drawn in the order of their times. The time axis ends at the latest of the times at which the channels
    are, that is the times of the samples that they wrote last. Where the times of a channel fall, because a clock was
    set back for example, `note` and the page say so: a fall within the window is drawn in its place, and one that takes
    all channels further back than the window begins the time axis anew. Samples outside the window, such as those of a
    channel whose clock is an hour behind that of the others, are not drawn, and the note says that, too.

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
    note : str
        What is odd about what it shows, for example that times fell; empty if nothing is.

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
        self._lines: list[Lines] = []
        self._columns: list[Columns] = []
        self._losses: list[list[int]] = []
        self._falls: dict[str, tuple[int, str]] = {}
        self._outside: dict[str, str] = {}
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
        begin = 0
        for channel, fields in self._wanted_fields.items():
            source = Source(self._hub, channel)
            try:
                self._lines.append(Lines(source, fields, begin))
            except BaseException:
                source.close()
                raise
            begin = self._lines[-1].rows.stop
        described = [line for lines in self._lines for line in lines.described(len(self._lines) > 1)]
        if described != self.series:
            self.series = described
        self._columns = [Columns(begin, self._n_columns, self._span())]
        self._losses, self._falls, self._outside = [], {}, {}
        for lines in self._lines:
            self._draw(lines, lines.source.history(self.window))
        self._outside = {}  # what was written before is rightly old

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

    def _draw(self, lines: Lines, batch: Batch) -> None:
        if not len(batch):
            return
        time_ns, fall_ns, values = lines.take(batch)
        if not len(time_ns):
            return
        if batch.lost:
            self._mark_loss(int(time_ns[0]), batch.lost)
        end_ns = max(each.now_ns for each in self._lines if each.now_ns is not None)
        anew = self._begin_anew(end_ns)
        if fall_ns:
            time_ns, values = self._in_order(time_ns, values, end_ns)
            self._note_fall(lines, fall_ns, end_ns, anew)
        behind_ns = end_ns - int(time_ns[-1])
        if behind_ns > max(self._span(), SLACK_NS):
            self._outside[lines.source.channel] = f"its times are {_words(behind_ns)} behind, outside the window"
        else:
            self._outside.pop(lines.source.channel, None)
        for columns in self._columns:
            for rows, part in values:
                columns.add(rows, time_ns, part)

    def _begin_anew(self, end_ns: int) -> bool:
        """Begin the time axis anew if it ends more than a window behind the times at which the channels are."""
        full = self._columns[0]
        if full.end is None or full.end * full.width - min(max(end_ns, EARLIEST), LATEST) <= self._span() + full.width:
            return False
        self._columns = [Columns(len(full.points), self._n_columns, self._span())]
        self._losses = []
        return True

    def _in_order(
        self, time_ns: NDArray[np.int64], values: list[tuple[slice, NDArray[Any]]], end_ns: int
    ) -> tuple[NDArray[np.int64], list[tuple[slice, NDArray[Any]]]]:
        """Sort samples by their times; those beyond the end of the time axis belong to one before it."""
        order = np.argsort(time_ns, kind="stable")
        order = order[: np.searchsorted(time_ns[order], min(end_ns + self._span(), LATEST), "right")]
        return time_ns[order], [(rows, part[order]) for rows, part in values]

    def _note_fall(self, lines: Lines, fall_ns: int, end_ns: int, anew: bool) -> None:
        """Say that times fell, for as long as the place is in the window."""
        what = f"its times fell by {_words(fall_ns)}" + ("; the time axis began anew" if anew else "")
        self._falls[lines.source.channel] = (end_ns, what)

    def _mark_loss(self, at_ns: int, count: int) -> None:
        """Remember a loss; those in one column are one mark."""
        width = self._columns[0].width
        if self._losses and self._losses[-1][0] // width == at_ns // width:
            self._losses[-1][1] += count
        else:
            self._losses.append([at_ns, count])

    def _odd(self) -> str:
        end_ns = max((each.now_ns for each in self._lines if each.now_ns is not None), default=0)
        self._falls = {c: fall for c, fall in self._falls.items() if 0 <= end_ns - fall[0] <= self._span()}
        found = {c: what for c, (_, what) in self._falls.items()} | self._outside
        return ", ".join(f"{channel}: {what}" for channel, what in found.items())

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
        columns, full = self._columns[-1], self._columns[0]
        if columns.end is None or full.end is None:
            return None
        self._frames_drawn += 1
        if self._frames_drawn % SETTLE_FRAMES == 0:
            for each in self._columns:
                each.settle()
        begin_ns = (columns.end - columns.n_columns) * columns.width
        oldest_ns = full.end * full.width - self._span()
        self._losses = [mark for mark in self._losses if mark[0] >= oldest_ns]
        meta = {
            "n": columns.points.shape[1],
            "at": 2 * (columns.end % columns.n_columns),
            "t0": str(begin_ns),  # more digits than a number of the page has
            "dt": columns.width / 2e9,
            "base": [_text(base or 0) for base in columns.base],
            "last": [value for lines in self._lines for value in lines.last],
            "losses": [[(at_ns - begin_ns) / 1e9, count] for at_ns, count in self._losses],
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


def _text(number: int) -> int | str:
    """A whole number for the page; as text where the page would round it."""
    return number if abs(number) <= EXACT else str(number)


def _words(span_ns: int) -> str:
    """A span of time in words."""
    seconds = span_ns / 1e9
    return f"{seconds:.3g} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))
