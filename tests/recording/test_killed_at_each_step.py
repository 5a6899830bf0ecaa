"""A recorder that is killed at any step of its work on the disk leaves a store that is proven up to its last commit."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from labhub.errors import DamagedStore, NotARecording
from labhub.recording import Proof, verify
from labhub.recording.layout import Rows
from labhub.recording.proof import signing_key
from labhub.recording.store import RecordingStore
from labhub.schema import Schema

STEPS = ("open", "os.rename", "os.mkdir", "os.remove", "os.truncate")
SCHEMA = Schema(np.dtype("f8"))
PATIENCE = 60


def recorded(path: Path) -> None:
    """Write a small store from the beginning to the end, in three commits."""
    store = RecordingStore(path, {"run_id": "1", "title": "t", "begun": "2026-01-01", "part": 1})
    store.add_group("x", {})
    store.commit()
    for k in range(2):
        store.append("x", SCHEMA, [Rows(name, ("time",), np.full(3, k, "i8"), {}) for name in ("value", "time")])
        store.describe("x", clock_epochs=[k])
        store.commit()
    store.close()


def killed_at(step: int, path: Path) -> None:
    """Write a store, and die before a step of the work on its files."""
    left = step

    def look(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS and str(path) in str(args[0]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    recorded(path)
    os._exit(0)


def proof_of(path: Path) -> Proof | None:
    """What a store proves; None if it is no recording yet."""
    try:
        return verify(path)
    except (NotARecording, DamagedStore):
        return None


def test_killed_at_each_step_a_store_is_proven(tmp_path: Path) -> None:
    signing_key()  # made here, not by each child
    path, commits, unfinished = tmp_path / "run.zarr", [], 0
    fork = multiprocessing.get_context("fork")
    for step in count():
        child = fork.Process(target=killed_at, args=(step, path))
        child.start()
        child.join(PATIENCE)
        assert child.exitcode in (0, -signal.SIGKILL)
        proof = proof_of(path)
        assert proof or not commits, f"step {step}: {proof}"  # before the first commit there is no recording
        if proof is not None:
            commits.append(proof.commits)
            unfinished += bool(proof.unfinished)
        if child.exitcode == 0:
            break
        shutil.rmtree(path, ignore_errors=True)
    assert commits == sorted(commits)
    assert commits[-1] == 4
    assert proof is not None
    assert proof.complete
    assert unfinished > 10
