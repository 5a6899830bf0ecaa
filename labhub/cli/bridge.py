"""``labhub bridge``: this machine's channels for others, and theirs for this one, until somebody has had enough."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labhub.cli.broker import LogForm, LogFormat, log_to_stderr
from labhub.cli.completion import Broker
from labhub.cli.exits import write_json_line
from labhub.cli.output import block

if TYPE_CHECKING:
    from labhub.bridging.span import Bridge

LOOK_INTERVAL = 0.25
"""How often it is looked whether anything has changed (in seconds)."""


def bridge(
    exports: Annotated[
        list[str] | None, typer.Option("--export", metavar="PATTERN", help="Channels to offer, such as 'camera.*'.")
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="SITE/PATTERN", help="Channels to bring here, such as 'host-a/*'."),
    ] = None,
    connect: Annotated[
        list[str] | None, typer.Option("--connect", metavar="ENDPOINT", help="Whom to call: tcp/host-a:7447.")
    ] = None,
    listen: Annotated[
        list[str] | None, typer.Option("--listen", metavar="ENDPOINT", help="Where to be called: tls/0.0.0.0:7447.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Zenoh's own configuration: TLS, access, routers.")
    ] = None,
    site: Annotated[
        str | None, typer.Option("--site", metavar="NAME", help="What the others call this machine; its host name.")
    ] = None,
    reexport: Annotated[bool, typer.Option("--reexport", help="Offer imported channels, too.")] = False,
    max_channels: Annotated[
        int | None,
        typer.Option("--max-channels", metavar="N", min=1, help="Most channels to bring here; 256 unless given."),
    ] = None,
    max_nbytes: Annotated[
        int | None,
        typer.Option("--max-nbytes", metavar="BYTES", min=1, help="Most shared memory for them; 4 GiB unless given."),
    ] = None,
    broker: Broker = "default",
    log_format: LogFormat = LogForm.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, at each change of a state.")] = False,
) -> None:
    """Join this machine's channels with those of others, until Ctrl-C or SIGTERM.

    In a terminal the state of every channel is shown; else a line is printed when one changes.
    """
    import labhub

    log_to_stderr(log_format)
    limits = {"max_channels": max_channels, "max_nbytes": max_nbytes}
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with (
        labhub.connect(broker) as hub,
        labhub.bridge(
            exports or (),
            imports or (),
            connect=connect or (),
            listen=listen or (),
            config=config,
            site=site,
            hub=hub,
            reexport=reexport,
            **{name: limit for name, limit in limits.items() if limit is not None},
        ) as running,
    ):
        _show(running, ended, as_json=as_json)


def _show(running: Bridge, ended: threading.Event, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    before = ""
    with Live(console=console, auto_refresh=False) as live:
        while not ended.wait(LOOK_INTERVAL):
            status = running.status
            now = repr((status, status.problems))
            if as_json and now != before:
                write_json_line(status.to_dict())
            elif not as_json and console.is_terminal:
                live.update(block(status.explain()), refresh=True)
            elif not as_json and now != before:
                typer.echo(block(status.explain()).plain)
            before = now
