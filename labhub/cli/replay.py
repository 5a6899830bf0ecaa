"""``labhub replay``: a recording becomes live channels again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from labhub.cli.completion import Broker
from labhub.cli.ending import Ending
from labhub.cli.output import cell, say

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
    broker: Broker = "default",
) -> None:
    """Turn a recording into live channels again, until its end or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from labhub.hub import connect
    from labhub.replaying import replay as play

    pace = speed_of(speed)
    console = Console(stderr=True)
    with Ending() as ending, connect(broker) as hub:
        with (
            play(
                source, *channels or (), hub=hub, speed=pace, name=name or None, prefix=prefix, times=times
            ) as running,
            Live(console=console, auto_refresh=False, transient=True) as live,
        ):
            if pace is None:
                console.print(cell(f"waiting for a reader of each of: {', '.join(running.channels)}"), highlight=False)
            while not ending.asked and not running.wait(LOOK_INTERVAL):
                status = running.status
                if console.is_terminal:
                    late = f", {status.behind:.1f} s late" if status.behind > 1 else ""
                    done = f"▶ {status.state}: {status.n_slots} of {status.total} slots{late}"
                    live.update(cell(done), refresh=True)
        status = running.status
    say(f"{', '.join(running.channels)}: {status.n_slots} of {status.total} slots replayed")
