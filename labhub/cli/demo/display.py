"""What the demo shows: a live table in a terminal, a line now and then elsewhere, and the table at the end."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from labhub.cli.demo.messages import Report
from labhub.cli.demo.readers import READERS
from labhub.cli.output import cell
from labhub.words import visible

if TYPE_CHECKING:
    from labhub.cli.demo.director import Director
    from labhub.cli.demo.process import Worker

# How often a line is printed where there is no terminal to draw in (in seconds).
LINE_EVERY = 5.0
BARS = "▁▂▃▄▅▆▇█"


class Display:
    """Shows how a demo is doing.

    Parameters
    ----------
    console : rich.console.Console
        Where to.
    director : Director
        What.
    seconds : float
        How long it will run (in seconds).
    """

    def __init__(self, console: Console, director: Director, seconds: float) -> None:
        self._console = console
        self._director = director
        self._seconds = seconds
        self._next_line = LINE_EVERY
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_interactive else None

    def __enter__(self) -> Self:
        self._say(f"A broker at {self._director.endpoint}, and each producer and reader a process of its own.")
        self._say(f"It runs for {self._seconds:g} seconds; Ctrl-C ends it early.")
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, elapsed: float) -> None:
        """Draw the state after `elapsed` seconds."""
        if self._live:
            clock = Text(f"{elapsed:5.1f} s of {self._seconds:g} s", style="dim")
            self._live.update(Group(clock, counts(self._director), *self._now_lines()), refresh=True)
        elif elapsed >= self._next_line:
            self._next_line += LINE_EVERY
            for name, worker in self._director.readers.items():
                if worker.report is not None and worker.report.now:
                    self._say(f"{elapsed:4.0f} s  {READERS[name].channel}, {name}: {worker.report.now}")

    def _say(self, line: str) -> None:
        self._console.print(cell(line), highlight=False, soft_wrap=True)

    def _now_lines(self) -> list[Text]:
        lines = []
        for name, worker in self._director.readers.items():
            report = worker.report or Report(state="ready")
            line = Text.assemble((f"{READERS[name].channel:>13}  ", "cyan"), visible(report.now))
            if report.trace and self._console.encoding.lower().startswith("utf"):
                line.append(f"  {sparkline(report.trace)}", style="red")
            lines.append(line)
        return lines


def counts(director: Director) -> Table:
    """Tabulate, per channel and reader, what was produced, received and lost, how fast and how late."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("channel, readers", no_wrap=True, min_width=22)
    for heading in ("produced", "received", "lost", "slots/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=7)
    for channel, producer in director.producers.items():
        made = producer.report or Report(state="ready")
        table.add_row(Text(channel, style="cyan"), f"{made.slots}", "", "", f"{made.rate:.1f}")
        for name, worker in director.readers.items():
            if READERS[name].channel == channel:
                table.add_row(*_reader_row(name, worker))
    return table


def _reader_row(name: str, worker: Worker) -> tuple[str | Text, ...]:
    report = worker.report or Report(state="ready")
    lossless = ", lossless" if READERS[name].mode == "lossless" else ""
    lost = Text(f"{report.lost}", style="yellow" if report.lost else "")
    delays = ("-" if delay is None else f"{delay:.2f}" for delay in (report.p50_ms, report.p99_ms))
    return f"  {name}{lossless}", "", f"{report.slots}", lost, f"{report.rate:.1f}", *delays


def sparkline(values: tuple[float, ...]) -> str:
    """Draw values as a line of block characters, one for each, from the lowest to the highest."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)
