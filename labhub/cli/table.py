"""A sample of all channels as a table that fits 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from labhub.cli.output import cell
from labhub.words import age, one_line, short

if TYPE_CHECKING:
    from labhub.cli.sampling import ChannelSample, Sample

STYLE_OF = {"alive": "", "stalled": "yellow", "dead": "red", "unknown": "dim"}

STEP = 0.001
"""By how much a clock of slots may be off without being told of (in seconds): what producers follow as a step."""


def table(sample: Sample, rows: int | None = None) -> RenderableType:
    """Return the channels, and below them their readers; at most so many `rows` of both together."""
    channels = sample.channels
    readers = [(channel, reader) for channel in channels for reader in channel.readers]
    n_channels = len(channels) if rows is None else min(rows, len(channels))
    n_readers = len(readers) if rows is None else min(rows - n_channels, len(readers))
    parts: list[RenderableType] = [_title(sample), _channels(channels[:n_channels])]
    if n_readers:
        parts.append(_readers(readers[:n_readers]))
    hidden = [f"{len(channels) - n_channels} channels"] if len(channels) > n_channels else []
    hidden += [f"{len(readers) - n_readers} readers"] if len(readers) > n_readers else []
    if hidden:
        parts.append(Text(f"... and {' and '.join(hidden)} more than fit here", style="dim"))
    return Group(*parts)


def fitted(sample: Sample, console: Console) -> RenderableType:
    """Return as much of the table as fits the screen; a long name takes more than one line."""
    rows = max(1, console.height - 4)  # the title, two lines of heading, and what is hidden
    while True:
        lines = console.render_lines(table(sample, rows), pad=False)
        excess = len(lines) - console.height
        if excess <= 0 or rows <= 1:
            return SegmentLines(lines, new_lines=True)  # drawn once: that is what costs
        rows = max(1, rows - max(1, excess // 2))


def _title(sample: Sample) -> Text:
    moment = datetime.fromtimestamp(sample.timestamp_ns / 1e9, UTC)
    over = "" if sample.interval_s is None else f", over {sample.interval_s:.2g} s"
    text = cell(f"broker {sample.broker}, {len(sample.channels)} channels, {moment:%H:%M:%S} UTC{over}")
    for channel in sample.channels:
        if channel.error:
            text.append(f"\n{one_line(channel.name)} cannot be examined: {one_line(channel.error)}", style="yellow")
        if channel.clock_steps or abs(channel.clock_ahead_s or 0.0) > STEP:
            steps = f"{channel.clock_steps} steps of the clock, now {channel.clock_ahead_s or 0.0:+.3f} s from it"
            text.append(f"\n{one_line(channel.name)}: {steps}", style="yellow")
    if sample.broker_error:
        why = one_line(sample.broker_error)
        text.append(f"\nthe broker does not answer, these are its last channels: {why}", style="red")
    return text


def _channels(channels: list[ChannelSample]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column("channel", style="cyan", overflow="fold", min_width=7)
    for heading in ("slots/s", "MB/s", "head", "newest", "fill", "evict", "t/out"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("producer", no_wrap=True)
    for channel in channels:
        cells = [
            _number(channel.slots_per_s),
            "-" if channel.bytes_per_s is None else f"{channel.bytes_per_s / 1e6:.1f}",
            _number(channel.head),
            "-" if channel.newest_s is None else age(channel.newest_s),
            "-" if channel.fill is None else f"{channel.fill:.0%}",
            _number(channel.evictions),
            _number(channel.timeouts),
        ]
        state = channel.liveness if channel.where == "here" else channel.where
        producer = cell(f"{channel.pid} {state}", STYLE_OF.get(state, "yellow"))
        if channel.where == "remote":
            producer = cell(f"{state} {channel.hostname}", "dim")
        shown.add_row(cell(channel.name), *cells, producer)
    return shown


def _readers(readers: list[tuple[ChannelSample, dict[str, object]]]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    shown.add_column("\nread", style="cyan", overflow="fold", min_width=7)
    shown.add_column("\nby", justify="right", no_wrap=True)
    shown.add_column("\nas", no_wrap=True)
    for heading in ("lag", "received", "lost"):
        shown.add_column("\n" + heading, justify="right", no_wrap=True)
    for channel, reader in readers:
        kind = cell(reader["kind"])
        if reader["evicted"]:
            kind.append(" evicted", style="red")
        elif not reader["alive"]:
            kind.append(" dead", style="red")
        counts = [str(reader[key]) for key in ("lag", "received", "lost")]
        shown.add_row(cell(channel.name), str(reader["pid"]), kind, *counts)
    return shown


def _number(number: float | None) -> str:
    return "-" if number is None else short(number)
