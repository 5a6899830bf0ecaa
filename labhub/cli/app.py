"""The application behind the command ``labhub``."""

from __future__ import annotations

from typing import Annotated

import typer

from labhub import __version__
from labhub.cli.bridge import bridge
from labhub.cli.broker import app as broker
from labhub.cli.channels import channels
from labhub.cli.demo import demo
from labhub.cli.doctor import EXIT_CODES as DOCTOR_EXIT_CODES
from labhub.cli.doctor import doctor
from labhub.cli.exits import EXIT_CODES_HELP, example
from labhub.cli.info import info
from labhub.cli.key import app as key
from labhub.cli.record import record, verify
from labhub.cli.register import register
from labhub.cli.replay import replay
from labhub.cli.tail import tail
from labhub.cli.top import top


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labhub {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="labhub",
    help="Live data channels between the processes of a lab.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def labhub(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Live data channels between the processes of a lab."""


app.add_typer(broker, name="broker")
app.add_typer(key, name="key")
app.command(epilog=example("labhub channels 'pump.*' --json"))(channels)
app.command(epilog=example("labhub top 'pump.*' --interval 0.5"))(top)
app.command(epilog=example("labhub info pump.pressure"))(info)
app.command(epilog=example("labhub tail pump.pressure -n 3 --follow"))(tail)
app.command(epilog=example("labhub bridge --export 'camera.*' --listen tcp/0.0.0.0:7447"))(bridge)
app.command(epilog=example("labhub record 'pump.*' -o run42.zarr --split-size 2G"))(record)
app.command(epilog=example("labhub verify run42.zarr"))(verify)
app.command(epilog=example("labhub replay run42.zarr --speed 10 --prefix replay."))(replay)
app.command(epilog=example("labhub doctor --fix", DOCTOR_EXIT_CODES))(doctor)
app.command(epilog="Example: labhub demo --seconds 20")(demo)
app.command(epilog=example("labhub register pump.raw --schema \"[('t', '<f8'), ('bar', '<f4')]\" --units t=s,bar=bar"))(
    register
)
