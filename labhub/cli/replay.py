"""``labhub replay``: a recording becomes live channels again."""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from labhub.cli.completion import Broker
from labhub.cli.ending import Ending
from labhub.cli.exits import ExitCode
from labhub.cli.output import cell, say
from labhub.errors import LabHubError
from labhub.words import one_line

if TYPE_CHECKING:
    from rich.live import Live

    from labhub.replaying import Replay

LOOK_INTERVAL = 0.25


def speed_of(text: str) -> float | None:
    """Read a pace: a number, or ``max`` (None) for as fast as lossless readers read."""
    if text == "max":
        return None
    try:
        return float(text.removeprefix("x"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no speed; write 1, 10 or max") from None


def replay(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A recording, or a CSV or Parquet file.")],
    channels: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CHANNEL...]", help="Names or shell patterns; everything unless given."),
    ] = None,
    speed: Annotated[
        str, typer.Option("--speed", metavar="X", help="So many times as fast as it was; max: as its readers read.")
    ] = "1",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the channel of a CSV file.")] = "",
    prefix: Annotated[str, typer.Option("--prefix", metavar="P", help="What to put before each name.")] = "",
    times: Annotated[
        Literal["original", "now"], typer.Option("--times", help="Timestamps: as recorded, or those of now.")
    ] = "original",
    time_unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None,
        typer.Option("--time-unit", help="Unit of times that are numbers, where they do not tell it themselves."),
    ] = None,
    key: Annotated[
        str,
        typer.Option("--key", metavar="HEX", help="Who signed the recording, if it was not you; any: whoever did."),
    ] = "",
    broker: Broker = "default",
) -> None:
    """Turn a recording into live channels again, until its end or Ctrl-C. Exit code 1 if a channel failed."""
    from rich.console import Console
    from rich.live import Live

    from labhub.hub import connect
    from labhub.replaying import replay as play

    pace = speed_of(speed)
    console = Console(stderr=True)
    logging.getLogger("labhub.replaying").addHandler(logging.NullHandler())  # what it says is shown here
    start = partial(
        play, speed=pace, name=name or None, prefix=prefix, times=times, time_unit=time_unit, key=key or None
    )
    with Ending() as ending, connect(broker) as hub:
        with (
            start(source, *channels or (), hub=hub) as running,
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            for channel, notes in running.notes.items():
                for line in notes:
                    console.print(cell(f"{channel}: {line}"), highlight=False, soft_wrap=True)
            if pace is None:
                console.print(cell(f"waiting for a reader of each of: {', '.join(running.channels)}"), highlight=False)
            _watch(running, ending, live, console.is_terminal)
        status = running.status
    say(f"{', '.join(running.channels)}: {status.n_slots} of {status.total} slots replayed")
    if status.error:
        say(f"labhub: {one_line(status.error)}", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _watch(running: Replay, ending: Ending, live: Live, is_terminal: bool) -> None:
    """Show how it goes, until it ends or somebody has had enough."""
    while running.running and not ending.asked:
        with contextlib.suppress(LabHubError, OSError):  # the status says it, too
            running.wait(LOOK_INTERVAL)
        status = running.status
        if is_terminal:
            late = f", {status.behind:.1f} s late" if status.behind > 1 else ""
            live.update(cell(f"▶ {status.state}: {status.n_slots} of {status.total} slots{late}"), refresh=True)
