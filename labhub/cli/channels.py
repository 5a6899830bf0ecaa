"""``labhub channels``: what there is to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labhub.cli.completion import Broker, channel_names
from labhub.cli.exits import quiet_pipe, write_json
from labhub.cli.output import cell, say
from labhub.words import age

if TYPE_CHECKING:
    from rich.table import Table

    from labhub.hub import ChannelInfo


def channels(
    pattern: Annotated[
        str,
        typer.Argument(metavar="PATTERN", help="Shell pattern of channel names.", autocompletion=channel_names),
    ] = "*",
    broker: Broker = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array, for scripts.")] = False,
) -> None:
    """List the channels that a broker knows.

    Exit code 3 means that no such broker runs; a broker without channels is an empty list.
    """
    from labhub.hub import connect

    with connect(broker) as hub:
        found = hub.channels(pattern)
    with quiet_pipe():
        if as_json:
            write_json([channel.to_dict() for channel in found])
        elif found:
            from rich.console import Console

            Console(soft_wrap=True).print(tabulate(found))
        else:
            say(f"no channel matches {pattern!r}", err=True)


def tabulate(found: list[ChannelInfo]) -> Table:
    """One row for each channel."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("channel", overflow="fold")
    table.add_column("slot")
    table.add_column("units")
    for heading in ("producer", "readers", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    for channel in found:
        units = dict.fromkeys(channel.units.values())
        table.add_row(
            cell(channel.name, "cyan"),
            cell(channel.layout or "undeclared"),
            cell(", ".join(units)),
            cell(f"{channel.producer_pid} {channel.liveness}"),
            cell(channel.consumers),
            cell(age(channel.age_s)),
        )
    return table
