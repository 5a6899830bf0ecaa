"""Judges the demo's counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from labhub.cli.demo.messages import Report
from labhub.cli.demo.readers import READERS


def complaints(producers: Mapping[str, Report], readers: Mapping[str, Report]) -> Iterator[str]:
    """Say, one line each, what does not add up.

    Parameters
    ----------
    producers : mapping of str to Report
        The last word of each producer, by channel.
    readers : mapping of str to Report
        The last word of each reader, by its name.

    Yields
    ------
    str
        A reader whose received and lost slots are not those produced, or that found wrong ones.
    """
    for name, report in readers.items():
        channel = READERS[name].channel
        produced = producers[channel].slots
        if report.slots + report.lost != produced:
            yield f"{channel}, {name}: {report.slots} received + {report.lost} lost, but {produced} produced"
        if report.wrong:
            yield f"{channel}, {name}: {report.wrong} slots with wrong content or out of order"


def misrecorded(producers: Mapping[str, Report], recorder: Report) -> Iterator[str]:
    """Say what is wrong with the recording: it must hold every slot that was produced, or say that it is missing."""
    produced = sum(report.slots for report in producers.values())
    if recorder.slots + recorder.lost != produced:
        yield f"recording: {recorder.slots} stored + {recorder.lost} missing, but {produced} produced"


def silences(producers: Mapping[str, Report]) -> Iterator[str]:
    """Name the channels on which nothing was produced, whose counts would add up without proving anything."""
    for channel, report in producers.items():
        if report.slots == 0:
            yield f"{channel}: nothing was produced"
