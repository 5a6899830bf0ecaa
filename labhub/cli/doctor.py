"""``labhub doctor``: what is wrong, and how to put it right."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from labhub.cli.exits import ExitCode, quiet_pipe, write_json
from labhub.cli.output import say
from labhub.words import one_line, visible

if TYPE_CHECKING:
    from labhub.doctor import Finding

EXIT_CODES = "Exit codes: 0 healthy, 1 problems found and not removed, 2 wrong usage, 130 interrupted."
COLOUR = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Remove what is provably dead; living and foreign things are never touched.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of findings, for scripts.")] = False,
) -> None:
    """Look for what is wrong with labhub on this machine, and say how to put it right.

    It looks at directories and their permissions, at shared memory and limits, at keys, at brokers and whether they
    answer, and at each segment.
    """
    from labhub.doctor import examine, repair

    findings = examine()
    if fix:
        findings = repair(findings)
    unsolved = sum(finding.unsolved for finding in findings)
    with quiet_pipe():
        if as_json:
            write_json([finding.to_dict() for finding in findings])
        else:
            for finding in findings:
                show(finding)
            say(f"{unsolved} problem{'' if unsolved == 1 else 's'}" if unsolved else "healthy")
    raise typer.Exit(ExitCode.FAILED if unsolved else ExitCode.OK)


def show(finding: Finding) -> None:
    """Print one finding, and below it what to do about it, if there is something."""
    label = finding.outcome or finding.severity
    colour = COLOUR["ok" if finding.outcome == "removed" else finding.severity]
    text = visible(f"{finding.check}: {finding.subject}: {one_line(finding.what)}")
    typer.echo(typer.style(f"{label:<8}", fg=colour) + indented(text))
    if finding.fix and finding.outcome != "removed" and finding.severity != "ok":
        say(f"{'':<8}fix: {finding.fix}")


def indented(text: str) -> str:
    """Wrap a text for the terminal, its further lines indented; elsewhere a finding stays one line, for grep."""
    if not sys.stdout.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns - 8)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "\n        ".join(lines)
