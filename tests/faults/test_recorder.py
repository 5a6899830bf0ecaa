"""34: what happens to a recorder does not happen to the acquisition, and its file says what is missing.

A recorder stands here for whatever reads losslessly and writes to a disk: a program of the user's.
"""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labhub.hub import Hub, connect, named_broker
from tests.faults.recorder import CHANNEL, SLOT, records, slots
from tests.faults.rounds import Fault

EVICT_AFTER = 1.0
AT_ONCE = 8
CAPACITY = 512
SMALL_DISK = 1024 * 1024


@pytest.fixture
def hub(private_dirs: Path) -> Iterator[Hub]:
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub:
            yield hub


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

    def go_on(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Acquire until a condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the recorder did not come so far in time"
            self.step()

    def judge(self) -> None:
        """Nothing was lost beside the recorder, and no write took longer than an eviction."""
        while self.seen < self.producer.next_seq:
            self.step()
        assert self.witness.lost == 0
        # Half a second more for a machine that runs other tests as well.
        assert self.slowest < EVICT_AFTER + 0.5


@contextmanager
def recorder(path: Path, *wrapper: str) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder in a process of its own, which is dead afterwards, whatever happens."""
    command = [*wrapper, sys.executable, "-m", "tests.faults.recorder", str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[bytes]) -> str:
    """What a process has said since, without waiting."""
    ready, _, _ = select.select([process.stdout], [], [], 0)
    return os.read(process.stdout.fileno(), 64).decode() if ready else ""


def checked(data: bytes) -> tuple[int, int]:
    """Compare every slot of a recording with its seq; how many there are, and how many are said to be missing."""
    kept = missing = 0
    expected: int | None = None
    for first, lost, found in records(data):
        assert (found == slots(first, len(found))).all()
        if expected is not None:
            assert first == expected + lost
            missing += lost
        expected = first + len(found)
        kept += len(found)
    return kept, missing


def in_background(acquisition: Acquisition, process: subprocess.Popen[bytes]) -> None:
    """Go on acquiring until the recorder says that it is there."""
    said: list[str] = []
    acquisition.go_on(lambda: said.append(hear(process)) or "".join(said) == "ready\n")


@pytest.mark.fault(34, quick=2, full=20)
def test_34_recorder_killed_at_random_moments(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    chance = random.Random(34)
    path = tmp_path / "recording"
    acquisition = Acquisition(hub)
    for _ in fault.each_round():
        with recorder(path) as process:
            in_background(acquisition, process)
            size = path.stat().st_size
            acquisition.go_on(lambda: path.stat().st_size > size)  # noqa: B023  it ends within the round
            ends = time.monotonic() + chance.uniform(0.0, 0.05)
            acquisition.go_on(lambda: time.monotonic() > ends)  # noqa: B023
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            fault.happened()
        with fault.recovery():
            evictions = acquisition.producer.stats()["evictions"]
            acquisition.go_on(lambda: acquisition.producer.stats()["evictions"] > evictions)  # noqa: B023
    kept, missing = checked(path.read_bytes())
    assert kept
    assert missing  # between two recorders nobody recorded, and the file says how much
    acquisition.judge()
    acquisition.producer.close()


@pytest.mark.fault(34, quick=1, full=5)
def test_34_recorder_with_a_full_disk(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size={SMALL_DISK} tmpfs "{tmp_path}"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no private mount namespace here")
    acquisition = Acquisition(hub)
    for _ in fault.each_round():
        # Without a fork in between: the process that is waited for is the recorder.
        wrapper = ("unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh")
        with recorder(tmp_path / "recording", *wrapper) as process:
            in_background(acquisition, process)
            said: list[str] = []
            acquisition.go_on(lambda: said.append(hear(process)) or said[-1])  # noqa: B023
            assert int(said[-1]) == errno.ENOSPC
            fault.happened()
            written = Path(f"/proc/{process.pid}/root{tmp_path}/recording").read_bytes()
        assert SMALL_DISK - 8192 < len(written) <= SMALL_DISK
        kept, missing = checked(written)
        assert missing == 0
        assert kept * SLOT.itemsize > SMALL_DISK * 0.8
        evictions = acquisition.producer.stats()["evictions"]
        for _ in range(2 * CAPACITY // AT_ONCE):
            acquisition.step()
        assert acquisition.producer.stats()["evictions"] == evictions  # it left in order, and held nobody up
    acquisition.judge()
    acquisition.producer.close()
