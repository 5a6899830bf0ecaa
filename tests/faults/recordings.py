"""An acquisition that a recorder records, the recorder's process, and the books of both."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xarray as xr

from labhub.hub import Hub
from labhub.recording.layout import REASONS
from tests.faults.recorder import CHANNEL, SLOT, slots

EVICT_AFTER = 1.0
CAPACITY = 512
AT_ONCE = 32
PATIENCE = 90.0
"""How long a recorder may take for anything (in seconds), on a machine where many others are busy."""


class Acquisition:
    """A producer with a lossless reader beside the recorder: neither may notice what happens to that one."""

    def __init__(self, hub: Hub) -> None:
        self.producer = hub.producer(CHANNEL, dtype=SLOT, capacity=CAPACITY, evict_after=EVICT_AFTER)
        self.witness = hub.consumer(CHANNEL, mode="lossless")
        self.seen = 0
        self.slowest = 0.0

    def step(self) -> None:
        """Write a few slots, and let the witness read them."""
        first = self.producer.next_seq
        began = time.monotonic()
        self.producer.write_many(slots(first, AT_ONCE))
        self.slowest = max(self.slowest, time.monotonic() - began)
        batch = self.witness.next_batch(CAPACITY, 1, 5.0, False)
        assert batch is not None
        assert batch.lost == 0
        assert (batch.data == slots(self.seen, len(batch))).all()
        self.seen += len(batch)

    def go_on(self, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Acquire until a condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the recorder did not come so far in time"
            self.step()

    def go_on_for(self, seconds: float) -> None:
        """Acquire for so long."""
        ends = time.monotonic() + seconds
        self.go_on(lambda: time.monotonic() > ends)

    def go_round(self) -> None:
        """Acquire more than the ring holds: whoever does not read is evicted by then."""
        for _ in range(2 * CAPACITY // AT_ONCE):
            self.step()

    def judge(self) -> None:
        """Nothing was lost beside the recorder, and no write took longer than an eviction."""
        while self.seen < self.producer.next_seq:
            self.step()
        assert self.witness.lost == 0
        # Half a second more for a machine that runs other tests as well.
        assert self.slowest < EVICT_AFTER + 0.5
        self.producer.close()


class Recorder:
    """A recorder in a process of its own, which is dead when its ``with`` block ends."""

    def __init__(self, store: Path, *wrapper: str) -> None:
        command = [*wrapper, sys.executable, "-m", "tests.faults.recorder", str(store)]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._heard = b""

    def said(self) -> Any:
        """What it has said last, without waiting; None if that is nothing new."""
        assert self.process.stdout is not None  # a pipe
        ready, _, _ = select.select([self.process.stdout], [], [], 0)
        if ready:
            self._heard += os.read(self.process.stdout.fileno(), 4096)
        line, newline, rest = self._heard.partition(b"\n")
        if not newline:
            assert self.process.poll() is None, "the recorder ended by itself"
            return None
        self._heard = rest
        return json.loads(line)

    def say(self, words: str) -> None:
        """Tell it something."""
        assert self.process.stdin is not None  # a pipe
        self.process.stdin.write(f"{words}\n".encode())
        self.process.stdin.flush()

    def begin(self, acquisition: Acquisition) -> None:
        """Go on acquiring until it records."""
        acquisition.go_on(lambda: self.said() == "ready")

    def outcome(self, acquisition: Acquisition) -> dict[str, int]:
        """Go on acquiring until it has told what became of it."""
        said: list[dict[str, int]] = []
        acquisition.go_on(lambda: (word := self.said()) and (said.append(word) or said))
        return said[-1]

    def kill(self) -> None:
        """End it with SIGKILL; that is what it died of."""
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(60) == -signal.SIGKILL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def committed(store: Path) -> int:
    """How many slots of the channel a store holds for whoever opens it now."""
    try:
        return opened(store).sizes.get("time", 0)
    except FileNotFoundError:
        return 0


def opened(store: Path) -> xr.Dataset:
    """The channel, as xarray alone opens it."""
    return xr.open_zarr(store, group=CHANNEL, chunks=None)


@dataclass(frozen=True)
class Books:
    """What a store holds of the channel.

    Attributes
    ----------
    stored : int
        Slots; each was compared with its seq.
    missing : dict of str to int
        Slots that the table of gaps misses, by reason.
    span : tuple of int
        First seq, and the one behind the last.
    epochs : list of int
        In their order.
    """

    stored: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    span: tuple[int, int] = (0, 0)
    epochs: list[int] = field(default_factory=list)


def checked(store: Path) -> Books:
    """Compare every slot with its seq, and the table of gaps with where slots are missing; count both."""
    found = opened(store).load()
    gaps: dict[tuple[int, int], int] = {}
    missing: dict[str, int] = {}
    if "gap_seq" in found:
        words = {number: reason for reason, number in REASONS.items()}
        table = (found[f"gap_{column}"].values for column in ("seq", "time", "slots", "reason"))
        for behind, time_ns, n_slots, number in zip(*table, strict=True):
            gaps[int(behind), int(time_ns)] = int(n_slots)
            missing[words[int(number)]] = missing.get(words[int(number)], 0) + int(n_slots)
    if "seq" not in found:
        return Books(missing=missing)
    seq, epoch = found["seq"].values.astype(np.int64), found["epoch"].values
    for name in SLOT.names or ():
        assert (found[name].values == slots(0, int(seq.max()) + 1)[name][seq]).all()
    before = np.array([gaps.get((int(s), int(t)), 0) for s, t in zip(seq[1:], found["time"].values[1:], strict=True)])
    same = np.diff(epoch) == 0  # another producer may begin anew
    assert (np.diff(seq) - 1)[same].tolist() == before[same].tolist()
    return Books(len(seq), missing, (int(seq[0]), int(seq[-1]) + 1), np.unique(epoch).tolist())


def verified(store: Path) -> dict[str, Any]:
    """What ``labhub verify`` says of a store."""
    done = subprocess.run(
        [sys.executable, "-m", "labhub.cli", "verify", str(store), "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if said["good"] else 1)
    return said
