"""A producer, a reader and every kind of wait, in a process whose wall clock is stepped under them (test_clock.py).

For each offset on its standard input (in seconds) it steps the clock, in the middle of the waits, and prints what it
saw.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from labhub import Batch, diagnose
from labhub.errors import BackpressureTimeout, TimeoutExpired
from labhub.hub import Consumer, Hub, Producer, connect

PATIENCE = 0.6
CHANNEL = "clock"


def step(seconds: int) -> None:
    """Set the wall clock of all that share it to so many seconds beside the machine's."""
    with Path(os.environ["STEPPED_CLOCK"]).open("r+b") as file:
        file.write(struct.pack("<q", seconds))


def waits(hub: Hub, stream: Consumer) -> dict[str, Callable[[], object]]:
    """Calls that wait for `PATIENCE` seconds in vain, each on an object of its own."""
    full = hub.producer("full", dtype="f8", capacity=4, evict_after=None, timeout=PATIENCE)
    holder = hub.consumer("full", mode="lossless")
    full.write_many([0.0] * 4)
    newest = hub.consumer("never.written", mode="latest")
    watch = hub.watch("nothing.*", timeout=PATIENCE)

    def held() -> None:
        assert holder.lag == 4
        full.write(0.0)

    return {
        "next batch": lambda: next(stream.batches(timeout=PATIENCE)),
        "latest": lambda: newest.latest(timeout=PATIENCE),
        "back-pressure": held,
        "wait for": lambda: hub.wait_for("never", timeout=PATIENCE),
        "watch": lambda: next(watch),
    }


def timed(wait: Callable[[], object]) -> float:
    """How long a wait takes that must end in a timeout (in seconds)."""
    began = time.monotonic()
    try:
        wait()
    except (TimeoutExpired, BackpressureTimeout):
        return time.monotonic() - began
    raise AssertionError("what never comes came")


def written(producer: Producer, reader: Consumer) -> Batch:
    """Write one slot, and read it."""
    producer.write(0.0)
    return next(reader.batches(timeout=20))


def falls(batches: list[Batch]) -> int:
    """How often a time is before that of the slot before it, in one epoch."""
    pairs = list(pairwise((batch.epoch, int(ns)) for batch in batches for ns in batch.timestamp_ns))
    return sum(late < early for (epoch, early), (next_epoch, late) in pairs if epoch == next_epoch)


def main() -> None:
    with connect(timeout=20) as hub, hub.producer(CHANNEL, dtype="f8") as producer, ThreadPoolExecutor() as pool:
        silent = hub.producer("never.written", dtype="f8")
        reader = hub.consumer(CHANNEL)
        waiting = hub.consumer(CHANNEL)
        calls = waits(hub, waiting)
        print("ready", flush=True)
        for line in sys.stdin:
            running = {name: pool.submit(timed, call) for name, call in calls.items()}
            before = time.time(), time.monotonic()
            step(int(line))
            after = time.time(), time.monotonic()
            took = {name: future.result(60) for name, future in running.items()}
            begins = producer.epoch + (abs(after[0] - before[0]) > 0.5)
            batches = [written(producer, reader)]
            while batches[-1].epoch != begins:
                batches.append(written(producer, reader))
            early = time.monotonic_ns()
            batches.append(written(producer, reader))
            late = time.monotonic_ns()
            stamp = int(batches[-1].timestamp_ns[-1])
            off = stamp - time.time_ns()
            waiting.seek("newest")
            stepped = (after[0] - before[0]) - (after[1] - before[1])
            # The clock of the timestamps, as an offset to the monotonic one, is somewhere between these two.
            seen = {
                "stepped": stepped,
                "took": took,
                "stamp": stamp,
                "between": [stamp - late, stamp - early],
                "off": off,
            }
            seen["falls"] = falls(batches)
            seen["steps"] = producer.stats()["clock_steps"]
            seen["ahead"] = diagnose(CHANNEL, slots=False).clock_ahead_ns
            with hub.producer("new", dtype="f8") as new, hub.consumer("new") as consumer:
                new.write(0.0)
                seen["new"] = (
                    int(next(consumer.batches(timeout=20)).headers["timestamp_ns"][0]) - time.time_ns()
                ) / 1e9
            print(json.dumps(seen | {"epoch": batches[-1].epoch, "link": hub.status}), flush=True)
        silent.close()


if __name__ == "__main__":
    main()
