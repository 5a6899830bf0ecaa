"""What one more costs: one more consumer, one more sleeping reader, one more channel.

Run it with ``python benchmarks/scaling.py [RESULT.json [PAGE.md]]``; the page's marks are filled, if there is one.
Everything is CPU time of one thread, or a count, so that other programs of the machine matter little.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import discovery
import numpy as np
import psutil
from bench.report import Rows, fill, markdown
from common import machine, private_directories, report

from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer

FRAME = Schema.infer(dtype="f8", shape=8)  # 64 bytes
CONSUMERS = (0, 1, 4, 16, 64)
SLEEPERS = (0, 1, 2, 4, 8)
CHANNELS = (1, 10, 100, 400)
CAPACITY = 1024
ROUNDS = 15

Series = dict[int, float]


def slope(series: Series) -> float:
    """Return how much one more costs, by a line through all of them."""
    return float(np.polyfit(list(series), list(series.values()), 1)[0])


def write_cost(p: DataBlockProducer, drain: Callable[[], None]) -> float:
    """Nanoseconds of CPU time of one write of 64 bytes, while half the ring is filled."""
    record, taken = np.zeros(8), []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(CAPACITY // 2):
            p.write(record)
        taken.append((time.thread_time_ns() - began) / (CAPACITY // 2))
        drain()
    return statistics.median(taken)


def with_consumers(mode: str) -> Series:
    """Measure a write with consumers that are awake, and read all of it in between."""
    found = {}
    for count in CONSUMERS:
        with open_producer("scaling", FRAME, capacity=CAPACITY) as p, ExitStack() as stack:
            opened: list[DataBlockConsumer] = [
                stack.enter_context(open_consumer("scaling", FRAME, mode=mode))  # type: ignore[arg-type]
                for _ in range(count)
            ]

            def drain(consumers: list[DataBlockConsumer] = opened) -> None:
                for consumer in consumers:
                    next(consumer.batches())

            found[count] = write_cost(p, drain)
    return found


@contextmanager
def sleeping(count: int) -> Iterator[None]:
    """Keep readers waiting in threads of their own, each for the next slot, again and again."""
    with ExitStack() as stack:
        consumers = [stack.enter_context(open_consumer("scaling", FRAME, mode="latest")) for _ in range(count)]

        def read(consumer: DataBlockConsumer) -> None:
            for _ in consumer.batches():
                pass

        threads = [threading.Thread(target=read, args=(consumer,)) for consumer in consumers]
        for thread in threads:
            thread.start()
        yield
        for thread in threads:
            thread.join(10)


def warm_clock() -> int:
    """Return the CPU time of this thread; the first look after a sleep takes microseconds itself."""
    for _ in range(10):
        time.thread_time_ns()
    return time.thread_time_ns()


def with_sleepers() -> Series:
    """Measure a write that has to wake readers up (in nanoseconds of CPU time of the writer)."""
    found = {}
    record = np.zeros(8)
    for count in SLEEPERS:
        with ExitStack() as stack:
            p = open_producer("scaling", FRAME, capacity=CAPACITY)
            stack.enter_context(sleeping(count))
            stack.callback(p.close)  # ends the readers, which `sleeping` then waits for
            taken = []
            for _ in range(200):
                time.sleep(0.002)  # not to synchronise: so that readers are asleep, which is what is measured
                began = warm_clock()
                p.write(record)
                taken.append(time.thread_time_ns() - began)
            found[count] = statistics.median(taken)
    return found


def open_channels() -> dict[str, Series]:
    """Measure what open channels take: file descriptors, bytes on tmpfs, and the time to open one."""
    descriptors, nbytes, taken = {}, {}, {}
    process = psutil.Process()
    for count in CHANNELS:
        with ExitStack() as stack:
            before = process.num_fds()
            began = time.thread_time()
            for k in range(count):
                stack.enter_context(open_producer(f"channel.{k}", FRAME, capacity=CAPACITY))
            taken[count] = (time.thread_time() - began) / count * 1e3
            descriptors[count] = float(process.num_fds() - before)
            files = [Path(segment_directory(), name) for name in os.listdir(segment_directory())]
            nbytes[count] = sum(path.stat().st_blocks * 512.0 for path in files if path.is_file())
    return {"file descriptors": descriptors, "bytes on tmpfs": nbytes, "ms to open one": taken}


def rows_of(name: str, one_more: str, unit: str, series: Series) -> tuple[str, ...]:
    """Return a row of the table: the ends of a series, and its slope."""
    first, last = min(series), max(series)
    return (
        name,
        f"{first}: {series[first]:.4g} {unit}",
        f"{last}: {series[last]:.4g} {unit}",
        f"{slope(series):.3g} {unit} {one_more}",
    )


def main() -> None:
    """Measure and report."""
    with private_directories():
        lossless, lossy, sleepers = with_consumers("lossless"), with_consumers("stream"), with_sleepers()
        channels = open_channels()
    found = discovery.measured()
    median = {count: figures["median_ms"] for count, figures in found.items()}
    registration = {count: figures["registration_ms"] for count, figures in found.items()}
    series = [
        ("write of 64 B, lossless consumers", "a consumer", "ns", lossless),
        ("write of 64 B, lossy consumers", "a consumer", "ns", lossy),
        ("write of 64 B, sleeping readers", "a reader", "ns", sleepers),
        ("open producers, file descriptors", "a channel", "", channels["file descriptors"]),
        (f"open producers of {CAPACITY} × 64 B, tmpfs", "a channel", "B", channels["bytes on tmpfs"]),
        ("opening a producer", "a channel", "ms", channels["ms to open one"]),
        ("broker, a discovery", "a channel", "ms", median),
        ("broker, a registration", "a channel", "ms", registration),
    ]
    rows: Rows = [("what", "with few", "with many", "one more costs"), *(rows_of(*row) for row in series)]
    report("scaling", rows, {"series": {name: values for name, _, _, values in series}})
    if len(sys.argv) > 2:
        fill(Path(sys.argv[2]), {"scaling": markdown(rows), "machine": f"{machine()['cpu']}, {os.cpu_count()} CPUs."})


if __name__ == "__main__":
    main()
