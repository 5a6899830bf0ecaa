"""``labhub broker``: start, stop, status and run; and the command ``labhub-broker``."""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labhub.cli.completion import broker_names
from labhub.cli.exits import EXIT_CODES_HELP, example, run, write_json
from labhub.cli.notify import notify
from labhub.cli.output import say
from labhub.words import age

if TYPE_CHECKING:
    from labhub.runtime import ConnectionFile

Name = Annotated[
    str,
    typer.Option("--name", "-n", metavar="NAME", help="Name of the broker.", autocompletion=broker_names),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="ENDPOINT",
        show_default="tcp://127.0.0.1:5570, or as the settings say",
        help="Where to listen; port 0 is any. If the default port is taken, any other is used. Other interfaces than "
        "the loopback demand enrolled client keys.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default="broker-NAME.toml in the user's configuration directory, if it is there",
        help="Settings file: where to listen, metrics, and who may do what with which channels. It is followed.",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port",
        metavar="PORT",
        min=0,
        max=65535,
        show_default="none, or as the settings say",
        help="Serve metrics for Prometheus on this port of the loopback; 0 is any.",
    ),
]


class LogForm(StrEnum):
    """How a broker logs."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[
    LogForm,
    typer.Option("--log-format", help="Log warnings as text, or everything as one JSON object a line, to stderr."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]

app = typer.Typer(
    help="The broker: the directory of all channels. Data never passes through it.",
    no_args_is_help=True,
    epilog=EXIT_CODES_HELP,
    rich_markup_mode=None,
)


@app.command(epilog=example("labhub broker start --name beamline"))
def start(
    name: Name = "default",
    listen: Listen = None,
    config: Config = None,
    metrics_port: MetricsPort = None,
    as_json: Json = False,
) -> None:
    """Start a broker in the background. Harmless if it runs already."""
    from labhub import runtime
    from labhub.hub import start_broker

    before = runtime.find_live(name)
    running = start_broker(name, listen, config=config, metrics_port=metrics_port)
    if as_json:
        write_json(place(running) | {"started": before != running})
        return
    verb = "runs already" if before == running else "started"
    say(f"broker {name!r} {verb}: pid {running.pid} at {running.endpoint}")


@app.command(epilog=example("labhub broker stop"))
def stop(name: Name = "default", as_json: Json = False) -> None:
    """Stop a broker; returns when it has removed the segments of dead producers. Live channels go on."""
    from labhub.hub import stop_broker

    stopped = stop_broker(name)
    if as_json:
        write_json(place(stopped) | {"stopped": True})
        return
    say(f"broker {name!r} stopped: pid {stopped.pid}")


@app.command(epilog=example("labhub broker status --json"))
def status(name: Name = "default", as_json: Json = False) -> None:
    """Show where a broker listens, who it is and what it knows."""
    from labhub.hub import connect, running_broker

    running = running_broker(name)
    with connect(name) as hub:
        facts = describe(running, [channel.name for channel in hub.channels()])
    if as_json:
        write_json(facts)
        return
    facts["uptime_s"] = age(facts["uptime_s"])
    facts["channels"] = ", ".join(facts["channels"]) or "none"
    for key, value in facts.items():
        say(f"{key.removesuffix('_s'):<10}  {value}")


def place(running: ConnectionFile) -> dict[str, Any]:
    """Where a broker is; the key is the public one."""
    return {key: getattr(running, key) for key in ("name", "endpoint", "public_key", "pid")}


def describe(running: ConnectionFile, channels: list[str]) -> dict[str, Any]:
    """Facts about a running broker; the key among them is the public one."""
    return place(running) | {"uptime_s": running.uptime, "channels": channels}


@app.command("run", epilog=example("labhub broker run --listen tcp://127.0.0.1:0"))
def run_in_foreground(
    name: Name = "default",
    listen: Listen = None,
    config: Config = None,
    metrics_port: MetricsPort = None,
    log_format: LogFormat = LogForm.TEXT,
) -> None:
    """Run a broker in this terminal, until Ctrl-C or SIGTERM; SIGHUP lets it read its settings again."""
    from labhub.hub import named_broker

    log_to_stderr(log_format)

    def ready(endpoint: str, public_key: str) -> None:
        if log_format is LogForm.TEXT:
            announce(endpoint, public_key)
        notify("READY=1")

    with named_broker(name, listen, ready, config=config, metrics_port=metrics_port) as service:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: service.stop())
        terminal = has_terminal()
        signal.signal(signal.SIGHUP, lambda *_: service.stop() if terminal and not has_terminal() else service.reload())
        service.run()
        notify("STOPPING=1")


def has_terminal() -> bool:
    """Whether there is a terminal behind the standard input; not after it was closed, which SIGHUP tells, too."""
    try:
        os.tcgetpgrp(0)
    except OSError:
        return False
    return True


def log_to_stderr(form: LogForm) -> None:
    """Log what happens: warnings for people, or everything but debugging for programs."""
    import logging

    from labhub.logs import JsonFormatter, TextFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if form is LogForm.TEXT else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING if form is LogForm.TEXT else logging.INFO)


def announce(endpoint: str, public_key: str) -> None:
    """Print the two lines that the reference broker prints at its start."""
    say(f"[INFO] Broker: listening on {endpoint}")
    say(f"[INFO] Broker: server_public_key = {public_key}")


def labhub_broker() -> None:
    """Run the command `labhub-broker`, which is ``labhub broker run``."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    command.command(epilog=example("labhub-broker --listen tcp://127.0.0.1:0"))(run_in_foreground)
    run(command, "labhub-broker")
