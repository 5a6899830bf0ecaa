"""SIGKILL at every step of the protocol, each passage of each point: what is left can be used, and nobody hangs.

The driver is a test build of the core that dies where it is told; everybody else here is the released build.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from labhub import _native
from labhub.datablock.location import segment_directory
from tests.faults.failpoints.aftermath import CAPACITY, Reader, producing, write
from tests.faults.rounds import Fault


def play(driver: str, scenario: str, *fatal: str | int) -> subprocess.CompletedProcess[str]:
    """Run one scenario; `fatal` is the point and passage at which it dies."""
    command = [driver, scenario, segment_directory(), "x", *map(str, fatal)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def passages(trace: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert trace.returncode == 0, (trace.returncode, trace.stderr)
    return {point: int(n) for point, n in map(str.split, trace.stdout.splitlines())}


def points_of(driver: str) -> list[str]:
    return subprocess.run([driver, "--list"], capture_output=True, text=True, timeout=60, check=True).stdout.split()


def left_behind() -> list[str]:
    return sorted(os.listdir(segment_directory()))


Play = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Scenario:
    """How a scenario of the driver is set up."""

    play: str
    seeds: tuple[str, ...] = ()  # scenarios that end in a death of their own, played before
    stuck: bool = False  # whether the lossless reader does not read meanwhile


PRODUCERS = {
    "create": Scenario("produce"),
    "create and write many": Scenario("produce_many"),
    "create beside an unfinished file": Scenario("produce", ("seed_unfinished",)),
    "take over": Scenario("produce", ("seed",)),
    "take over and write many": Scenario("produce_many", ("seed",)),
    "create and write copies": Scenario("copy"),
    "evict a stuck reader": Scenario("evict", ("seed",), stuck=True),
    "replace": Scenario("replace", ("seed",)),
    "remove a leftover": Scenario("produce", ("seed_closing",)),
    "bury": Scenario("bury", ("seed",)),
}


def with_a_dying_producer(driver: str, scenario: Scenario, *fatal: str | int) -> subprocess.CompletedProcess[str]:
    """Let the driver be the producer of two readers that live on; then let a new producer come."""
    for seed in scenario.seeds:
        assert play(driver, seed).returncode == -signal.SIGKILL
    readers = []
    if "x" in (left_behind() if scenario.seeds else []):
        readers = [Reader("stream").start(), Reader("lossless")]
        if not scenario.stuck:
            readers[1].start()
    played = play(driver, scenario.play, *fatal)
    began = time.monotonic()
    with producing() as producer:
        assert [name for name in left_behind() if name.endswith(".tmp")] == []
        late = [Reader("stream").start(), Reader("lossless").start()]
        if scenario.stuck:
            readers[1].start()
        write(producer, 2 * CAPACITY + 3)
        assert time.monotonic() - began < 10
    for reader in (*readers, *late):
        reader.finish()
    assert left_behind() == []
    return played


CONSUMERS = ["consume_lossless", "consume_lossy", "hold_slot", "unblock", "unblock_by_leaving", "be_evicted"]


def with_a_dying_consumer(driver: str, scenario: str, *fatal: str | int) -> subprocess.CompletedProcess[str]:
    """Let the driver be a reader beside two that live on; then let the producer go on, and another reader come."""
    wants_room = scenario in ("unblock", "unblock_by_leaving", "be_evicted")
    with producing(evict_after=0.0 if scenario == "be_evicted" else None) as producer:
        readers = [Reader("stream").start(), Reader("lossless").start()]
        write(producer, CAPACITY + CAPACITY // 2)
        command = [driver, scenario, segment_directory(), "x", *map(str, fatal)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:

            def go_on_once_it_is_registered() -> None:
                while child.poll() is None and not is_registered(child.pid):
                    time.sleep(0.001)  # a poll: `poll` becomes true within the bound of the driver
                write(producer, CAPACITY + 1)

            writer = threading.Thread(target=go_on_once_it_is_registered)
            if wants_room:
                writer.start()
            out, err = child.communicate(timeout=60)
        if wants_room:
            writer.join(60)
        began = time.monotonic()
        write(producer, CAPACITY)
        readers.append(Reader("lossless").start())
        write(producer, 2 * CAPACITY)
        assert time.monotonic() - began < 10
    for reader in readers:
        reader.finish()
    assert left_behind() == []
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def is_registered(pid: int) -> bool:
    consumers = _native.probe(segment_directory(), "x")["consumers"]
    assert isinstance(consumers, list)
    return pid in [c["pid"] for c in consumers]


def die_at_every_passage(fault: Fault, name: str, run: Play) -> None:
    """Play a scenario once for each passage of each point, which it does not survive."""
    passed = [(point, k + 1) for point, n in passages(run()).items() for k in range(n)]
    for point, k in fault.each(passed):
        try:
            played = run(point, k)
        except BaseException as error:
            error.add_note(f"{name}: after a death at passage {k} of {point}")
            raise
        assert played.returncode == -signal.SIGKILL, f"{name}, passage {k} of {point}: {played}"
        fault.happened()


@pytest.mark.fault(3, share=0.01)
def test_03_producer_killed_at_each_protocol_step(fault: Fault, driver: str) -> None:
    for name, scenario in PRODUCERS.items():
        die_at_every_passage(fault, name, partial(with_a_dying_producer, driver, scenario))


@pytest.mark.fault(3, share=0.01)
def test_03_consumer_killed_at_each_protocol_step(fault: Fault, driver: str) -> None:
    for name in CONSUMERS:
        die_at_every_passage(fault, name, partial(with_a_dying_consumer, driver, name))


def test_every_point_is_passed_by_one_of_these(driver: str) -> None:
    passed: set[str] = set()
    for scenario in PRODUCERS.values():
        passed |= passages(with_a_dying_producer(driver, scenario)).keys()
    for name in CONSUMERS:
        passed |= passages(with_a_dying_consumer(driver, name)).keys()
    points = points_of(driver)
    assert len(points) == len(set(points)) >= 60
    assert sorted(passed) == sorted(points)


def test_the_released_core_has_no_fail_points(driver: str) -> None:
    released, test_build = Path(_native.__file__).read_bytes(), Path(driver).read_bytes()
    for point in points_of(driver):
        marker = f"failpoint:{point}".encode()
        assert marker in test_build
        assert marker not in released
    assert b"failpoint" not in released
