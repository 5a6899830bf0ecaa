"""Faults 7, 15 and 38: pids that are used again, two who want the same channel, and numbers that wrap around."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from labhub import Schema, _native
from labhub.datablock.location import segment_directory
from tests.conftest import wait_until
from tests.faults.rounds import Fault
from tests.faults.segments import elsewhere, place

IN_A_PID_NAMESPACE = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
LAST_PID = "echo 100 > /proc/sys/kernel/ns_last_pid"


@pytest.mark.fault(7, full=2)
def test_07_pid_given_to_another_process(fault: Fault) -> None:
    probe = subprocess.run([*IN_A_PID_NAMESPACE, "sh", "-c", LAST_PID], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"no private pid namespace: {' '.join(probe.stderr.split())}")
    for _ in fault.each_round():
        command = [*IN_A_PID_NAMESPACE, sys.executable, "-m", "tests.faults.reused_pids", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        reused = [line.split()[0] for line in done.stdout.splitlines()]
        assert reused == ["producer", "consumer", "registration", "broker"]
        fault.happened(len(reused))


class Racers:
    """Two processes of `tests.faults.racer`."""

    def __init__(self, barrier: Path) -> None:
        barrier.write_bytes(bytes(16))
        self._races = 0
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.racer", str(me), str(barrier)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for me in (0, 1)
        ]

    def race(self, kind: str) -> tuple[dict[str, object], dict[str, object]]:
        """Have both run one race; what came of it for each."""
        self._races += 1
        for process in self.processes:
            assert process.stdin is not None  # a pipe, as is the other one
            process.stdin.write(f"{kind} {self._races}\n")
            process.stdin.flush()
        first, second = (json.loads(p.stdout.readline()) for p in self.processes if p.stdout is not None)
        return first, second

    def end(self) -> None:
        """End both, whatever they are doing."""
        for process in self.processes:
            process.kill()
            process.communicate(timeout=60)


@pytest.mark.fault(15, quick=100, full=2_000)
def test_15_two_producers_race_to_create_take_over_and_unlink(fault: Fault, private_dirs: Path) -> None:
    racers = Racers(private_dirs / "barrier")
    pids = [process.pid for process in racers.processes]
    try:
        for number in fault.each_round():
            kind = ("create", "takeover", "closing", "burial")[number % 4]
            both = racers.race(kind)
            winners = [k for k in (0, 1) if "whole" in both[k]]
            assert [both[k]["whole"] for k in winners] == [True] * len(winners), (kind, both)
            if kind in ("create", "takeover"):
                (winner,) = winners
                assert both[1 - winner]["busy"] == pids[winner], (kind, both, pids)
            elif kind == "closing":
                assert winners == [1]
            elif winners == []:  # who buries holds the lock for a moment, and is no producer
                assert both[0]["buried"]
            began = max(int(str(one["began"])) for one in both)
            fault.happened(began < min(int(str(one["ended"])) for one in both))
            assert not place("x").exists(), (kind, both)
        assert fault.occurred > fault.rounds // 20
    finally:
        racers.end()


NUMBER = Schema.infer(dtype="u8")
READER = """
NUMBER = Schema.infer(dtype="u8")
with open_consumer("x", NUMBER, mode={mode!r}) as c:
    print("ready", flush=True)
    received, expected = 0, c.cursor
    for batch in c.batches(timeout=60):
        assert int(batch.seq[0]) == expected + batch.lost
        assert (batch.data == batch.seq).all() and (np.diff(batch.seq) == 1).all()
        received += len(batch)
        expected = int(batch.seq[-1]) + 1
    print(received, c.lost, expected, flush=True)
"""
DATA_WORD, SPACE_WORD = 192, 256
"""Where the two futex words are in a segment (layout.hpp)."""
FOR_EVER = -1
MINUTE_NS = 60 * 10**9
CROSSED = {"sign of the data word": 2**30, "data word": 2**31, "two to the 32": 2**32, "sign of the slot's seq": 2**62}
BEFORE, BURST = 40, 200


def start_at(seq: int) -> _native.Producer:
    return _native.Producer(
        segment_directory(), "x", capacity=3, slot_nbytes=8, schema_hash=NUMBER.layout_hash, initial_seq=seq
    )


def word_at(offset: int) -> int:
    with place("x").open("rb") as file:
        file.seek(offset)
        return int(struct.unpack("<I", file.read(4))[0])


@pytest.mark.fault(38, full=2)
def test_38_waits_across_the_wrap_of_seq_and_data_word(fault: Fault) -> None:
    for _ in fault.each_round():
        for limit in (*CROSSED.values(), 2**63 - 1 - BURST):  # 2**63 slots would take a thousand years and more
            producer = start_at(limit - BEFORE)
            first = word_at(DATA_WORD)
            with elsewhere(READER.format(mode="lossless")) as one, elsewhere(READER.format(mode="stream")) as other:
                for seq in range(limit - BEFORE, limit + BEFORE):  # each of these finds the lossless reader asleep
                    wait_until(lambda: word_at(DATA_WORD) & 1, 60, "a reader that waits")
                    producer.write(struct.pack("<Q", seq), MINUTE_NS, FOR_EVER)
                fault.happened(limit not in (2**31, 2**32) or word_at(DATA_WORD) < first)
                slots = range(limit + BEFORE, limit + BURST)
                data = b"".join(struct.pack("<Q", seq) for seq in slots)
                assert producer.write_many(data, MINUTE_NS, FOR_EVER) == len(slots)  # and these find the ring full
                producer.close()
                received, lost, expected = map(int, one.read().split())
                assert (received, lost, expected) == (BEFORE + BURST, 0, limit + BURST)
                received, lost, expected = map(int, other.read().split())
                assert (received + lost, expected) == (BEFORE + BURST, limit + BURST)


@pytest.mark.fault(38, full=2)
def test_38_waits_across_the_wrap_of_the_space_word(fault: Fault) -> None:
    for _ in fault.each_round():
        for limit in (2**31, 2**32):
            producer = start_at(0)
            with place("x").open("r+b") as file:
                file.seek(SPACE_WORD)
                file.write(struct.pack("<I", limit - 20))
            with elsewhere(READER.format(mode="lossless")) as reader:
                written = 0
                while (word_at(SPACE_WORD) - limit) % 2**32 > 2**31:  # until the wake-ups are beyond
                    assert written < 1_000_000
                    data = b"".join(struct.pack("<Q", seq) for seq in range(written, written + 100))
                    written += producer.write_many(data, MINUTE_NS, FOR_EVER)
                fault.happened()
                producer.close()
                assert reader.read() == f"{written} 0 {written}"


HALF = """
p = _native.Producer(segment_directory(), "x", capacity=3, slot_nbytes=8,
                     schema_hash=Schema.infer(dtype="u8").layout_hash, initial_seq={first})
for seq in range({first}, {dies_at}): p.write(seq.to_bytes(8, "little"), 60 * 10**9, -1)
p.claim(60 * 10**9, -1)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.fault(38, full=2)
def test_38_takeover_at_the_wrap(fault: Fault) -> None:
    for _ in fault.each_round():
        for limit in CROSSED.values():
            with elsewhere(HALF.format(first=limit - 2, dies_at=limit)) as dead:
                with elsewhere(READER.format(mode="stream")) as reader:
                    dead.kill()  # in mid-write of the very slot
                    successor = start_at(0)
                    assert successor.took_over
                    assert successor.head == limit
                    fault.happened()
                    for seq in range(limit, limit + 20):
                        successor.write(struct.pack("<Q", seq), MINUTE_NS, FOR_EVER)
                    successor.close()
                    received, lost, expected = map(int, reader.read().split())
                    assert (received + lost, expected) == (20, limit + 20)
