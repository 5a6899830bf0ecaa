"""``labhub top``: how all channels do, live."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from labhub.cli.completion import Broker, channel_names
from labhub.cli.exits import quiet_pipe, write_json_line

if TYPE_CHECKING:
    from labhub.cli.sampling import Sampler


def top(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Shell pattern of channel names.", autocompletion=channel_names)
    ] = "*",
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.05, max=3600, metavar="S", help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print one sample, measured between two looks, and end.")
    ] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, metavar="N", help="End after so many samples.")] = None,
    broker: Broker = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for each sample.")] = False,
) -> None:
    """Show rates, readers and losses of all channels, until q or Ctrl-C.

    The broker only lists the channels; the numbers come straight from their segments, and neither producers nor
    readers notice. "newest" is the time since the newest slot; "fill" is how much of the ring the slowest lossless
    reader has still to read.
    """
    import sys

    from labhub.cli.sampling import Sampler
    from labhub.hub import connect

    with quiet_pipe(), connect(broker) as hub:
        hub.channels(pattern)  # so that what is wrong at the start ends it; later it is shown
        sampler = Sampler(broker, lambda: hub.channels(pattern))
        if once or as_json or count is not None or not sys.stdout.isatty():
            write(sampler, interval, 1 if once else count, as_json)
            return
        from labhub.cli.screen import watch

        watch(sampler, interval)


def write(sampler: Sampler, interval: float, count: int | None, as_json: bool) -> None:
    """Write samples one after the other, each measured between two looks."""
    from rich.console import Console

    from labhub.cli.table import table

    console = Console(soft_wrap=False)
    sampler.look()
    written = 0
    while count is None or written < count:
        time.sleep(interval)
        sample = sampler.look()
        if as_json:
            write_json_line(sample.to_dict())
        else:
            console.print(table(sample))
            console.file.flush()
        written += 1
