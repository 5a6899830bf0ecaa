"""What a scrape of the metrics takes with 10,000 channels, and what it does to whoever asks the broker meanwhile.

Run it with ``python benchmarks/scrape.py [RESULT.json]``: a broker process with real segments behind its channels, a
client over loopback, and a scraper that asks again as soon as it was answered. It takes half a minute.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import discovery
from common import private_directories, report

from labhub import liveness
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.hub import start_broker, stop_broker
from labhub.messenger import Messenger, ProducerInfo
from labhub.schema import Schema
from labhub.settings import settings_path

CHANNELS = 10_000
SEGMENTS = 2000
"""Fewer, because each producer takes two open files."""
WITH_SERIES = (1000, CHANNELS)
ROUNDS = 3
PORT = 9577
URL = f"http://127.0.0.1:{PORT}/metrics"


SCRAPER = f"""
import time, urllib.request
while True:
    began = time.perf_counter()
    with urllib.request.urlopen({URL!r}, timeout=60) as answer:
        assert b"labhub_broker_answers 1.0" in answer.read()
    print(time.perf_counter() - began, flush=True)
"""


@contextmanager
def again_and_again() -> Iterator[list[float]]:
    """Scrape without a pause, in a process of its own; how long each one took (in seconds), once it is over."""
    taken: list[float] = []
    with subprocess.Popen([sys.executable, "-c", SCRAPER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        taken.append(float(process.stdout.readline()))
        try:
            yield taken
        finally:
            process.terminate()
            taken += map(float, process.stdout.read().split())


def opened(stack: ExitStack) -> list[DataBlockProducer]:
    """Open the producers of all segments."""
    schema = Schema.infer(dtype="f8")
    directory = segment_directory()
    found = [open_producer(f"segment.{k:05}", schema, directory=directory, capacity=8) for k in range(SEGMENTS)]
    for block in found:
        stack.callback(block.close)
        block.write(1.0)
    return found


def register(messenger: Messenger, blocks: list[DataBlockProducer]) -> list[str]:
    """Tell the broker of channels, several for each segment; their names."""
    place = liveness.place_of(blocks[0].directory)
    names = [f"channel.{k:05}" for k in range(CHANNELS)]
    for start in range(0, CHANNELS, 200):
        pending = []
        for name, block in zip(names[start : start + 200], itertools.cycle(blocks), strict=False):
            info = ProducerInfo(block.name, os.getpid(), bytes(32), 1, block.metadata() | place)
            pending.append(messenger.register_producer(name, info))
        for future in pending:
            future.result(30)
    return names


def measured(with_series: int, blocks: list[DataBlockProducer]) -> dict[str, float]:
    """Start a broker that has series for so many channels, and measure it alone and under scrapes."""
    path = Path(settings_path())
    path.write_text(f"[metrics]\nport = {PORT}\nmax_channels = {with_series}\n")
    place = start_broker(endpoint="tcp://127.0.0.1:0")
    try:
        with Messenger() as messenger:
            assert messenger.connect(place.endpoint, place.public_key)
            names = register(messenger, blocks)
            alone = discovery.ask(messenger, names)
            with again_and_again() as taken:
                rounds = [discovery.ask(messenger, names) for _ in range(ROUNDS)]
                under = {key: max(figures[key] for figures in rounds) for key in rounds[0]}
    finally:
        stop_broker()
    return {
        "scrape_ms": statistics.median(taken) * 1e3,
        "median_alone_ms": alone["median_ms"],
        "p99_alone_ms": alone["p99_ms"],
        "median_scraped_ms": under["median_ms"],
        "p99_scraped_ms": under["p99_ms"],
        "max_scraped_ms": under["max_ms"],
    }


def main() -> None:
    """Measure and report."""
    with private_directories(), ExitStack() as stack:
        blocks = opened(stack)
        found = {count: measured(count, blocks) for count in WITH_SERIES}
    rows = [("with series", *(name.replace("_", " ") for name in found[CHANNELS]))]
    rows += [(str(count), *(f"{v:.2f}" for v in figures.values())) for count, figures in found.items()]
    report("scrape", rows, {"channels": CHANNELS, **{str(count): figures for count, figures in found.items()}})


if __name__ == "__main__":
    main()
