"""A small recorder, as its users write one until labhub has its own: a lossless reader that appends to a file.

``python -m tests.faults.recorder FILE``. A record is three numbers (first seq, slots that are missing before it, slots
in it) and the slots; what was cut off by a death or a full disk is no record.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import labhub
from labhub.errors import Evicted

CHANNEL = "daq"
SLOT = np.dtype([("seq", "<u8"), ("check", "<u8")])
HEAD = struct.Struct("<qqq")
MIX = np.uint64(0x9E3779B97F4A7C15)


def slots(first: int, count: int) -> np.ndarray:
    """Return the slots that belong to the seqs from `first` on."""
    found = np.empty(count, SLOT)
    found["seq"] = np.arange(first, first + count)
    found["check"] = found["seq"] * MIX
    return found


def records(data: bytes) -> Iterator[tuple[int, int, np.ndarray]]:
    """First seq, slots that are missing before it and slots of each whole record."""
    at = 0
    while at + HEAD.size <= len(data):
        first, lost, count = HEAD.unpack_from(data, at)
        at += HEAD.size
        if at + count * SLOT.itemsize > len(data):
            return
        yield first, lost, np.frombuffer(data, SLOT, count, at)
        at += count * SLOT.itemsize


def record(path: Path) -> None:
    """Append whatever comes, until the producer ends."""
    before = [first + len(found) for first, _, found in records(path.read_bytes())] if path.exists() else []
    evicted = 0
    with labhub.connect() as hub, hub.consumer(CHANNEL, mode="lossless") as consumer, path.open("ab") as file:
        expected = before[-1] if before else consumer.cursor
        batches = consumer.batches(max_slots=64)
        print("ready", flush=True)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Evicted as eviction:
                evicted += eviction.lost
                continue
            first = int(batch.seq[0])
            assert before or first - expected == evicted + batch.lost
            # A file that is continued begins behind a gap: nobody read what came while there was no recorder.
            file.write(HEAD.pack(first, first - expected, len(batch)) + batch.data.tobytes())
            file.flush()
            expected, before, evicted = first + len(batch), [], 0


if __name__ == "__main__":
    target = Path(sys.argv[1])
    try:
        record(target)
    except OSError as error:
        print(error.errno, flush=True)
        sys.stdin.read()  # the disk that is full goes away with this process; it is looked at before
