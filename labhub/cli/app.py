"""The application behind the command ``labhub``."""

from __future__ import annotations

import typer

from labhub.cli.broker import app as broker
from labhub.cli.channels import channels
from labhub.cli.demo import demo
from labhub.cli.exits import EXIT_CODES_HELP
from labhub.cli.register import register

app = typer.Typer(
    name="labhub",
    help="Live data channels between the processes of a lab.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(broker, name="broker")
app.command(epilog="Example: labhub channels 'pump.*' --json")(channels)
app.command(epilog="Example: labhub demo --seconds 20")(demo)
app.command(epilog="Example: labhub register pump.raw --schema \"[('t', '<f8'), ('bar', '<f4')]\" --units t=s,bar=bar")(
    register
)
