"""What a command prints for people: text is text, whoever wrote it, and never markup or an order to the terminal."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TYPE_CHECKING

import typer

from labhub.words import visible

if TYPE_CHECKING:
    from rich.text import Text


def say(text: object, *, err: bool = False) -> None:
    """Print one line."""
    typer.echo(visible(text), err=err)


def cell(text: object, style: str = "") -> Text:
    """Return a text for Rich, to be shown as it is: ``[mm]`` is a unit, no markup."""
    from rich.text import Text

    return Text(visible(text), style=style)


def block(text: str) -> Text:
    """Return a text of several lines for Rich, each shown as it is."""
    from rich.text import Text

    return Text("\n".join(map(visible, text.split("\n"))))


def print_anything() -> None:
    """Let an output whose encoding lacks a letter show its escape, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
