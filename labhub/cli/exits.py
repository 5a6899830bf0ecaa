"""How a command ends: an exit code that scripts can rely on, and for an error one clear line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import IntEnum

from labhub.errors import AuthenticationError, BrokerUnreachable, ChannelNotFound, LabHubError, SegmentAccessError

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such broker or channel, 4 access refused, 130 interrupted."
)


class ExitCode(IntEnum):
    """Exit codes of every labhub command. 2 is wrong usage and 130 is Ctrl-C, both given by typer."""

    OK = 0
    FAILED = 1
    NOT_FOUND = 3
    REFUSED = 4


def exit_code(error: Exception) -> ExitCode:
    """Exit code for an error that ended a command."""
    match error:
        case BrokerUnreachable() | ChannelNotFound():
            return ExitCode.NOT_FOUND
        case AuthenticationError() | SegmentAccessError() | PermissionError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED


def run(app: Callable[[], object]) -> None:
    """Run a typer application; an error of labhub or of the system becomes one line and an exit code."""
    try:
        app()
    except (LabHubError, OSError) as error:
        sys.stderr.write(f"labhub: {' '.join(str(error).split())}\n")
        sys.exit(exit_code(error))


def write_json(value: object) -> None:
    """Print a value as JSON, for scripts."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
