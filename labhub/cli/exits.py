"""How a command ends: an exit code that scripts can rely on, and for an error one clear line."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, NoReturn

from labhub.cli.output import print_anything
from labhub.errors import AuthenticationError, BrokerUnreachable, ChannelNotFound, LabHubError, SegmentAccessError
from labhub.words import one_line

EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such broker or channel, 4 access refused, 130 interrupted."
)


def example(command: str, codes: str = EXIT_CODES_HELP) -> str:
    """Return what stands at the end of a command's help: an example and its exit codes."""
    return f"Example: {command}\n\n{codes}"


class ExitCode(IntEnum):
    """Exit codes of every labhub command. 2 is wrong usage and 130 is Ctrl-C, both given by typer."""

    OK = 0
    FAILED = 1
    NOT_FOUND = 3
    REFUSED = 4
    INTERRUPTED = 130


def exit_code(error: Exception) -> ExitCode:
    """Exit code for an error that ended a command."""
    match error:
        case BrokerUnreachable() | ChannelNotFound():
            return ExitCode.NOT_FOUND
        case AuthenticationError() | SegmentAccessError() | PermissionError():
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED


def run(app: Callable[..., object], name: str = "labhub") -> None:
    """Run a typer application; an error of labhub or of the system becomes one line and an exit code."""
    print_anything()
    try:
        app(prog_name=name)
    except (LabHubError, OSError) as error:
        sys.stderr.write(f"labhub: {one_line(error.told('shell') if isinstance(error, LabHubError) else error)}\n")
        sys.exit(exit_code(error))
    except SystemExit as end:
        if end.code == ExitCode.INTERRUPTED:
            _leave(ExitCode.INTERRUPTED)
        raise


def _leave(code: int) -> NoReturn:
    """End at once: of native objects in threads that an interrupt has left behind the interpreter's end complains."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End quietly, and well, when whoever reads the output has had enough, as in ``| head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # So that the interpreter's last flush finds somebody who listens.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.OK)


def write_json(value: object) -> None:
    """Print a value as JSON, for scripts; what JSON has no number for (NaN, infinity) becomes null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def write_json_line(value: object) -> None:
    """Print a value as JSON in one line, at once; else as `write_json`."""
    sys.stdout.write(json.dumps(finite(value), separators=(",", ":"), allow_nan=False) + "\n")
    sys.stdout.flush()


def finite(value: Any) -> Any:
    """Return a JSON value with None for every number that is not finite."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [finite(inner) for inner in value]
    return value
