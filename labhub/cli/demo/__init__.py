"""``labhub demo``: real sensors, a recorded heartbeat and a camera-sized stream, live in this terminal."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labhub.cli.ending import Ending
from labhub.cli.output import cell

if TYPE_CHECKING:
    from rich.console import Console

    from labhub.cli.demo.director import Director
    from labhub.cli.demo.messages import Report


def demo(
    seconds: Annotated[float, typer.Option(min=1.0, metavar="SECONDS", help="How long the producers write.")] = 20.0,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="STORE", help="Record it all; about 100 MB a second.")
    ] = None,
) -> None:
    """Run a broker, three producers and four readers, each in a process of its own, and account for every slot.

    host.sensors carries this machine's sensors, 50 times a second; bio.ppg a recorded photoplethysmogram at its true
    rate, from which the heart rate is computed as it arrives; cam.frames more than 100 frames of 1 MiB a second, read
    by a lossless recorder and by a deliberately slow display that loses most of them and knows how many. With --record,
    everything is kept in a Zarr store that xarray opens, and is proven afterwards.

    Everything is private to the demo and gone afterwards. Ctrl-C ends it early, with the same table at the end.

    Exit codes: 0 every slot is accounted for, 1 something failed or does not add up, 130 interrupted before its first
    line, or a second time.
    """
    from rich.console import Console

    from labhub.cli.demo.director import INTERRUPTS, directing

    for number in INTERRUPTS:
        signal.signal(number, signal.default_int_handler)
    console = Console()
    if record is not None and record.exists():
        raise typer.BadParameter(f"{record} exists, and a recording overwrites nothing; choose another name")
    with directing(record) as director:
        with console.status("Starting a broker, three producers and four readers ..."):
            director.begin()
        # Before the first line is printed: from there on Ctrl-C means the table, wherever it strikes.
        with Ending(*INTERRUPTS) as ending:
            complete = _run(director, console, seconds, ending)
            verdict = _conclude(director, console, complete)
    raise typer.Exit(verdict)


def _run(director: Director, console: Console, seconds: float, ending: Ending) -> bool:
    """Show it for that long and let it come to its end; False if Ctrl-C ended it early."""
    from labhub.cli.demo.display import Display

    with Display(console, director, seconds) as display:
        complete = director.watch(seconds, display.show, lambda: ending.asked)
        director.finish()
    return complete


def _judge_recording(director: Director, console: Console, producers: Mapping[str, Report]) -> list[str]:
    """Prove the recording, if there is one, and say what is in it; return what is wrong."""
    if director.store is None or director.recorder is None or director.recorder.report is None:
        return []
    from labhub.cli.demo.outcome import misrecorded
    from labhub.recording import verify

    proof, report = verify(director.store), director.recorder.report
    missing = f", {report.lost} missing" if report.lost else ""
    console.print(
        cell(
            f"{director.store}: {report.slots} slots recorded{missing}, {proof.n_chunks} signed chunks; look at "
            f'it with xarray.open_zarr("{director.store}", group="bio.ppg")'
        ),
        highlight=False,
        soft_wrap=True,
    )
    return [*misrecorded(producers, report), *proof.damaged]


def _conclude(director: Director, console: Console, complete: bool) -> int:
    from labhub.cli.demo.display import counts
    from labhub.cli.demo.outcome import complaints, silences

    console.print(counts(director))
    console.print("p50, p99: time from writing a slot to its reader, median and 99th percentile.\n", highlight=False)
    producers, readers = director.last_words(director.producers), director.last_words(director.readers)
    for name, report in readers.items():
        if report.message:
            console.print(cell(f"{name}: {report.message}", "yellow"), highlight=False)
    wrong = [*complaints(producers, readers)]
    wrong += silences(producers) if complete else []
    wrong += _judge_recording(director, console, producers)
    wrong += [f"left behind: {path}" for path in director.left_behind()]
    if wrong:
        for line in wrong:
            console.print(cell(line, "red"), highlight=False, soft_wrap=True)
        return 1
    console.print(
        "Every slot is accounted for: received + lost = produced for every reader.\n"
        "Nothing is left behind: every process, segment and connection file is gone.",
        style="green",
        highlight=False,
    )
    return 0
