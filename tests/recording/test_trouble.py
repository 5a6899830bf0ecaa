"""A recorder that is killed, and a disk that is full: a readable prefix, and an acquisition that notices nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from labhub.errors import ForkedProcessError
from labhub.hub import Hub
from labhub.recording import verify

WORDS = 4096
RECORDER = """
    import sys, labhub
    with labhub.connect() as hub:
        rec = hub.record("cam", store=sys.argv[1])
        print("recording", flush=True)
        sys.stdin.readline()
"""


def frame(seq: int) -> np.ndarray:
    return np.arange(seq, seq + WORDS, dtype="u8")


def test_a_killed_recorder_leaves_a_readable_prefix(hub: Hub, tmp_path: Path, wait_until: Callable[..., None]) -> None:
    chance = random.Random(34)
    cut_in_mid_write = 0
    with hub.producer("cam", dtype="u8", shape=WORDS, capacity=64, timeout=5.0, evict_after=None) as p:
        for k in range(5):
            store = tmp_path / f"{k}.zarr"
            first = p.next_seq
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(RECORDER), str(store)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            with process.stdin, process.stdout:
                process.stdout.readline()
                ends = time.monotonic() + 1.3 + chance.random()
                slowest = 0.0
                while time.monotonic() < ends:
                    slowest = max(slowest, written(p))
                process.kill()
                process.wait()
            for _ in range(200):  # more than the ring holds: the dead reader is evicted
                slowest = max(slowest, written(p))
            found = xr.open_zarr(store, group="cam", chunks=None).load()
            assert found["seq"].values.tolist() == list(range(first, first + found.sizes["time"]))
            assert (found["value"].values[:, 0] == found["seq"].values).all()
            assert (found["value"].values[:, -1] == found["seq"].values + WORDS - 1).all()
            proof = verify(store)
            assert proof
            assert not proof.complete
            assert found.sizes["time"] > 0
            cut_in_mid_write += bool(list(store.rglob("*.partial")))
            assert slowest < 2.0


def written(p: object) -> float:
    began = time.monotonic()
    p.write(frame(p.next_seq))  # type: ignore[attr-defined]
    return time.monotonic() - began


def test_a_forked_child_leaves_the_recording_alone(hub: Hub, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    with hub.producer("cam", dtype="u8", shape=WORDS) as p:
        with hub.record("cam", store=store) as rec:
            p.write(frame(0))
            pid = os.fork()
            if pid == 0:
                refused = 0
                for use in rec.stop, rec.wait, lambda: rec.mark("mine"), lambda: rec.status:
                    try:
                        use()
                    except ForkedProcessError:
                        refused += 1
                rec.__exit__(None, None, None)
                os._exit(0 if refused == 4 and not rec.running else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert rec.running
            p.write(frame(1))
    assert rec.status.stored == 2
    assert verify(store).complete


IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
FULL_DISK = """
    import os, sys, numpy as np, labhub, xarray as xr
    from labhub.errors import RecordingError
    from labhub.recording import verify
    store = sys.argv[1] + "/run.zarr"
    with labhub.connect() as hub:
        noise = np.random.default_rng(1).integers(0, 2**16, (64, 16384), "u2")
        with hub.producer("cam", dtype="u2", shape=16384, capacity=64, evict_after=None, timeout=30) as p:
            rec = hub.record("cam", store=store)
            witness = hub.consumer("cam", mode="lossless")
            seen = 0
            for k in range(40):  # 80 MiB into 16
                for block in np.split(noise, 4):
                    p.write_many(block)
                    seen += len(next(witness.batches(min_slots=16)))
            assert seen == p.next_seq == 40 * 64, seen
            assert rec.wait(30)
            print(rec.status.state, rec.status.free < 2**23)
            try:
                rec.stop()
            except RecordingError as error:
                lost = error.lost
                assert "No space left" in str(error) and "not touched" in str(error), error
            found = xr.open_zarr(store, group="cam", chunks=None).load()
            n = found.sizes["time"]
            assert found["seq"].values.tolist() == list(range(n)), found
            assert (found["value"].values == noise[np.arange(n) % 64]).all()
            assert n == rec.status.stored > 100 and rec.status.n_slots == n + lost and lost > 0, (n, lost)
            proof = verify(store)
            assert proof and not proof.complete, proof
            assert str(rec) == "Recording('run.zarr', cam: failed)", rec
            print(n > 0)
"""


def test_a_full_disk_ends_the_recording_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=16m tmpfs "{tmp_path}" && exec "$@"'
    probe = subprocess.run([*IN_NAMESPACE, mount, "sh", "true"], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"no private mount namespace: {' '.join(probe.stderr.split())}")
    command = [*IN_NAMESPACE, mount, "sh", sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["failed", "True", "True"]
