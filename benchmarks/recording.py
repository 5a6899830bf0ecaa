"""Recording a channel, beside the same zarr-python write with the data in memory: the share of its rate that is left.

Run it with ``python benchmarks/recording.py [RESULT.json]``; it takes two minutes. The two take turns, so that a slow
minute of the machine hits both; each writes the same frames into the same chunks with the same compression. The
recorder also reads them out of the ring, hashes each chunk and signs, while the producer, a process of its own, writes.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from bench.statistics import interval, verdict
from common import interleaved, private_directories, report
from numpy.typing import NDArray

import labhub
from labhub.hub import named_broker
from labhub.recording.layout import slots_per_chunk

ROUNDS, FRAMES, SHAPE, BLOCK = 20, 128, (512, 1024), 32
NBYTES = FRAMES * SHAPE[0] * SHAPE[1] * 2
TARGET = 0.8
Compression = Literal["zstd", "none"]
COMPRESSIONS: tuple[Compression, ...] = ("zstd", "none")
BASELINES = {"beside zarr's defaults": False, "beside every chunk": True}
PRODUCER = """
import sys, numpy as np, labhub
frames = np.load(sys.argv[1])
with labhub.connect() as hub:
    p = hub.producer("cam", like=frames[0], dims=("y", "x"), capacity=32, timeout=60, evict_after=None)
    for line in sys.stdin:
        for _ in range(int(line) // len(frames)):
            p.write_many(frames)
        print("written", flush=True)
"""


@dataclass(frozen=True)
class Bench:
    """What both sides need: a hub with the channel, its producer, the frames and a directory in memory."""

    hub: labhub.Hub
    producer: subprocess.Popen[str]
    frames: NDArray[np.uint16]
    base: Path

    def in_memory(self, compression: Compression, every_chunk: bool) -> float:
        """Write the frames with zarr-python alone; bytes per second.

        By default it looks at each chunk, to leave out empty ones. The recorder, told to write every chunk, does not.
        """
        chunk = slots_per_chunk(self.hub.find("cam").schema)  # type: ignore[arg-type]  # it is declared
        began = time.perf_counter()
        array = zarr.create_array(
            self.base / "m.zarr",
            shape=(FRAMES, *SHAPE),
            chunks=(chunk, *SHAPE),
            dtype=self.frames.dtype,
            compressors="auto" if compression == "zstd" else None,
            config={"write_empty_chunks": every_chunk},
        )
        for k in range(0, FRAMES, BLOCK):
            array[k : k + BLOCK] = self.frames
        took = time.perf_counter() - began
        shutil.rmtree(self.base / "m.zarr")
        return NBYTES / took

    def recorded(self, compression: Compression) -> float:
        """Record as many frames; bytes per second, from the first one to the closed store."""
        assert self.producer.stdin is not None
        assert self.producer.stdout is not None
        recording = self.hub.record("cam", store=self.base / "r.zarr", compression=compression)
        began = time.perf_counter()
        self.producer.stdin.write(f"{FRAMES}\n")
        self.producer.stdin.flush()
        self.producer.stdout.readline()
        status = recording.stop()
        took = time.perf_counter() - began
        assert status.stored == FRAMES, status
        shutil.rmtree(self.base / "r.zarr")
        return NBYTES / took


@contextmanager
def prepared() -> Iterator[Bench]:
    """A broker, a producer of frames as a camera gives them, and everything private to the benchmark."""
    chance = np.random.default_rng(1)
    picture = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])).astype("u2")  # smooth, and a few bits of noise
    frames = picture + chance.integers(0, 16, (BLOCK, *SHAPE), "u2")
    with (
        private_directories(),
        tempfile.TemporaryDirectory(dir="/dev/shm") as base,
        named_broker(endpoint="tcp://127.0.0.1:0") as broker,
    ):
        broker.start()
        np.save(Path(base, "frames.npy"), frames)
        command = [sys.executable, "-c", PRODUCER, str(Path(base, "frames.npy"))]
        producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with producer, labhub.connect() as hub:
            hub.wait_for("cam", timeout=30)
            yield Bench(hub, producer, frames, Path(base))
            assert producer.stdin is not None
            producer.stdin.close()


def main() -> None:
    """Measure and report."""
    with prepared() as bench:
        ways: dict[tuple[Compression, str], Callable[[], float]] = {}
        for compression in COMPRESSIONS:
            for name, every_chunk in BASELINES.items():
                ways[compression, name] = partial(bench.in_memory, compression, every_chunk)
            ways[compression, "recorded"] = partial(bench.recorded, compression)
        found = interleaved(ways, ROUNDS)
    rows = [("1 MiB frames", "in memory MB/s", "recorded MB/s", "ratio", f"at least {TARGET}")]
    result: dict[str, object] = {"rounds": ROUNDS, "frames": FRAMES}
    for compression in COMPRESSIONS:
        recorded = found[compression, "recorded"]
        for name in BASELINES:
            memory = found[compression, name]
            ratio = interval([r / m for r, m in zip(recorded, memory, strict=True)])
            rates = (f"{statistics.median(rate) / 1e6:.0f}" for rate in (memory, recorded))
            rows.append((f"{compression}, {name}", *rates, str(ratio), verdict(ratio, TARGET)))
            result[f"{compression}, {name}"] = {"in memory": memory, "recorded": recorded, "ratio": str(ratio)}
    report("recording", rows, result)


if __name__ == "__main__":
    main()
