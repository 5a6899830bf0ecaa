"""Recording a channel, beside the same zarr-python write with the data in memory: the share of its rate that is left.

Run it with ``python benchmarks/recording.py [RESULT.json]``. The two take turns, so that a slow minute of the machine
hits both; each writes the same frames into the same chunks with the same compression. The recorder also reads them out
of the ring, hashes each chunk and signs, while the producer, in a process of its own, writes.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from common import private_directories, report

import labhub
from labhub.hub import named_broker
from labhub.recording.layout import slots_per_chunk

ROUNDS, FRAMES, SHAPE, BLOCK = 9, 256, (512, 1024), 32
TARGET = 0.8
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


def in_memory(frames: np.ndarray, path: Path, compression: str, chunk: int) -> float:
    """Write the frames with zarr-python alone; bytes per second."""
    began = time.perf_counter()
    array = zarr.create_array(
        path,
        shape=(FRAMES, *SHAPE),
        chunks=(chunk, *SHAPE),
        dtype=frames.dtype,
        compressors="auto" if compression == "zstd" else None,
    )
    for k in range(0, FRAMES, BLOCK):
        array[k : k + BLOCK] = frames
    return FRAMES * frames[0].nbytes / (time.perf_counter() - began)


def recorded(hub: labhub.Hub, producer: subprocess.Popen[str], path: Path, compression: str) -> float:
    """Record as many frames; bytes per second, from the first one to the closed store."""
    assert producer.stdin is not None
    assert producer.stdout is not None
    recording = hub.record("cam", store=path, compression=compression)  # type: ignore[arg-type]
    began = time.perf_counter()
    producer.stdin.write(f"{FRAMES}\n")
    producer.stdin.flush()
    producer.stdout.readline()
    status = recording.stop()
    took = time.perf_counter() - began
    assert status.stored == FRAMES, status
    return FRAMES * SHAPE[0] * SHAPE[1] * 2 / took


def main() -> None:
    """Measure and report."""
    # What a camera gives: a smooth picture and a few bits of noise.
    chance = np.random.default_rng(1)
    picture = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])).astype("u2")
    frames = picture + chance.integers(0, 16, (BLOCK, *SHAPE), "u2")
    rates: dict[str, dict[str, list[float]]] = {c: {"in memory": [], "recorded": []} for c in ("zstd", "none")}
    with private_directories(), tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        base = Path(directory)
        np.save(base / "frames.npy", frames)
        with named_broker(endpoint="tcp://127.0.0.1:0") as broker:
            broker.start()
            command = [sys.executable, "-c", PRODUCER, str(base / "frames.npy")]
            producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            with producer, labhub.connect() as hub:
                hub.wait_for("cam", timeout=30)
                chunk = slots_per_chunk(hub.find("cam").schema)  # type: ignore[arg-type]
                for _ in range(ROUNDS):
                    for compression, found in rates.items():
                        found["in memory"].append(in_memory(frames, base / "m.zarr", compression, chunk))
                        shutil.rmtree(base / "m.zarr")
                        found["recorded"].append(recorded(hub, producer, base / "r.zarr", compression))
                        shutil.rmtree(base / "r.zarr")
                assert producer.stdin is not None
                producer.stdin.close()
    rows = [("1 MiB frames", "in memory MB/s", "recorded MB/s", "ratio", "least", "greatest", "aim")]
    result = {}
    for compression, found in rates.items():
        ratios = [r / m for r, m in zip(found["recorded"], found["in memory"], strict=True)]
        medians = [statistics.median(found[kind]) / 1e6 for kind in ("in memory", "recorded")]
        result[compression] = {**found, "ratio": statistics.median(ratios)}
        spread = (statistics.median(ratios), min(ratios), max(ratios), TARGET)
        rows.append((compression, *(f"{m:.0f}" for m in medians), *(f"{r:.2f}" for r in spread)))
    report("recording", rows, {"rounds": ROUNDS, "frames": FRAMES, "rates": result})


if __name__ == "__main__":
    main()
