"""``labhub record`` and ``labhub verify``: channels into a store, and the proof that it is what was recorded."""

from __future__ import annotations

import contextlib
import select
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from labhub.cli.completion import Broker, channel_names
from labhub.cli.ending import Ending
from labhub.cli.exits import ExitCode, write_json
from labhub.cli.output import cell, say
from labhub.errors import ClosedError
from labhub.words import one_line, size

if TYPE_CHECKING:
    from labhub.recording import Proof, Recording, RecordingStatus

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
LOOK_INTERVAL = 0.25


def nbytes_of(text: str) -> int | None:
    """Read a size such as ``500M`` or ``2G``; None if it is empty."""
    number, unit = (text[:-1], text[-1:]) if text[-1:].isalpha() else (text, "")
    if not text:
        return None
    try:
        return round(float(number) * UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no size; write 500M or 2G") from None


def record(
    channels: Annotated[
        list[str],
        typer.Argument(metavar="CHANNEL...", help="Names or shell patterns.", autocompletion=channel_names),
    ],
    store: Annotated[Path, typer.Option("-o", "--output", metavar="STORE", help="New Zarr store, such as run42.zarr.")],
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.0, metavar="S", help="Stop after so many seconds.")
    ] = None,
    split_size: Annotated[
        str, typer.Option("--split-size", metavar="SIZE", help="Begin another store at so many bytes, such as 2G.")
    ] = "",
    split_seconds: Annotated[
        float | None, typer.Option("--split-seconds", min=0.0, metavar="S", help="... or after so many seconds.")
    ] = None,
    compression: Annotated[
        Literal["zstd", "none"], typer.Option("--compression", help="How chunks are packed.")
    ] = "zstd",
    title: Annotated[str, typer.Option("--title", help="What it is called; signed, and shown by verify.")] = "",
    broker: Broker = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of it as JSON, for scripts.")] = False,
) -> None:
    """Record channels until Ctrl-C, into a Zarr store that xarray opens. Losing nothing, where the channel allows it.

    In a terminal, each line that is typed meanwhile becomes a marker with its time.
    """
    from labhub.hub import connect

    splitting = nbytes_of(split_size)
    with Ending() as ending, connect(broker) as hub:
        with hub.record(
            *channels,
            store=store,
            split_nbytes=splitting,
            split_seconds=split_seconds,
            compression=compression,
            title=title,
        ) as recording:
            _watch(recording, seconds, ending)
        status = recording.status
    if as_json:
        write_json(asdict(status) | {"stores": [str(p) for p in recording.paths]})
    else:
        say(f"{' '.join(str(p) for p in recording.paths)}: {_words(status)}")


def verify(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The recording.")],
    key: Annotated[
        str, typer.Option("--key", metavar="HEX", help="Who must have signed it; whoever did unless given.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")] = False,
) -> None:
    """Prove that a recording is what was recorded, or name what was changed. Exit code 1 if anything was."""
    from labhub.recording import verify as prove

    proof = prove(store, key or None)
    if as_json:
        write_json(asdict(proof) | {"path": str(proof.path), "good": proof.good})
    else:
        _tell(store, proof)
    if not proof.good:
        raise typer.Exit(ExitCode.FAILED)


def _tell(store: Path, proof: Proof) -> None:
    """Say what is wrong, and what is proven of which recording by whom."""
    for line in proof.damaged:
        say(line)
    whose = "you" if proof.own else f"{proof.public_key}, which is not your key"
    cut = "" if proof.complete else ", which was cut off (what was committed before is all there)"
    verdict = "is what was recorded" if proof.good else "is DAMAGED"
    say(f"{store} {verdict}: {proof.n_files} files, {proof.nbytes} bytes, signed by {whose}{cut}")
    if proof.title:
        say(f"title: {proof.title}")
    run = proof.run_id or "none (a recording of an earlier labhub)"
    say(f"run: {run}, part {proof.part}, begun {proof.began or 'at an unknown time'}")
    state = "complete" if proof.complete else "not complete"
    said = f", {len(proof.unfinished)} unfinished files that do not count" if proof.unfinished else ""
    say(f"{state}: {proof.commits} commits, {proof.n_chunks} chunks, manifest of version {proof.version}{said}")


def _watch(recording: Recording, seconds: float | None, ending: Ending) -> None:
    """Show how it goes, until it ends, its time is over, or somebody has had enough; take typed lines as markers."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console, told = Console(stderr=True), set[str]()
    ends = float("inf") if seconds is None else time.monotonic() + seconds
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while recording.running and not ending.asked and time.monotonic() < ends:
            for channel, error in recording.errors.items():
                if channel not in told:
                    told.add(channel)
                    console.print(Text(f"{channel} is not recorded: {error}", style="red"), soft_wrap=True)
            if console.is_terminal:
                live.update(cell(f"● {_words(recording.status)}"), refresh=True)
            _mark_or_wait(recording, min(LOOK_INTERVAL, max(0.0, ends - time.monotonic())))


def _mark_or_wait(recording: Recording, seconds: float) -> None:
    watched = [sys.stdin] if sys.stdin.isatty() else []
    ready, _, _ = select.select(watched, [], [], seconds)
    if ready and (line := sys.stdin.readline().strip()):
        with contextlib.suppress(ClosedError):  # it has ended just now, and says why by itself
            recording.mark(line)


def _words(status: RecordingStatus) -> str:
    missing = f", {status.missing} missing" if status.missing else ""
    error = f"; {one_line(status.error)}" if status.error else ""
    return (
        f"{status.stored} slots stored{missing}, {size(status.nbytes)} in {status.seconds:.1f} s "
        f"({size(status.rate)}/s), {size(status.free)} free{error}"
    )
