"""The command line, one module for each group of commands; imports what a command needs only when it runs."""

from __future__ import annotations


def main() -> None:
    """Run the command `labhub`."""
    from labhub.cli.app import app
    from labhub.cli.exits import run

    run(app)
