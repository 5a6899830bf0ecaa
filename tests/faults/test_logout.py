"""41: the last logout removes a user's files in shared memory and his runtime directory; his programs go on."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub import runtime
from labhub.datablock.location import segment_directory
from labhub.errors import ClosedError, LabHubError
from labhub.hub import Hub, connect, start_broker, stop_broker
from tests.faults.rounds import Fault

Wait = Callable[..., None]


@pytest.fixture
def hub(wait_until: Wait) -> Iterator[Hub]:
    """A hub with a broker in a process of its own."""
    broker = start_broker(endpoint="tcp://127.0.0.1:0")
    with connect() as hub:
        yield hub
    wait_until(runtime.find_live, 20, "the connection file")
    stop_broker()
    wait_until(lambda: not broker.alive, 20, "the end of the broker")


def log_out() -> None:
    """Remove the files and directories that systemd removes; what is mapped stays mapped."""
    shutil.rmtree(os.environ["LABHUB_SHM_DIR"])
    shutil.rmtree(os.environ["LABHUB_RUNTIME_DIR"])


@pytest.mark.fault(41, quick=2, full=10, share=0.2)
def test_41_producers_go_on_in_a_new_segment(
    fault: Fault, hub: Hub, wait_until: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    with hub.producer("x", dtype="i8", capacity=64) as producer:
        for number in fault.each_round():
            following, ending = hub.consumer("x", follow=True, timeout=20), hub.consumer("x", timeout=20)
            first = producer.next_seq
            producer.write_many([first, first + 1])
            seen = next(following.batches(timeout=20)).data.tolist()
            caplog.clear()
            with caplog.at_level(logging.WARNING, "labhub.hub.succession"):
                log_out()
                fault.happened()
                wait_until(lambda: Path(segment_directory(), "x").exists(), 20, "a new segment")
                wait_until(lambda after=number + 1: hub.status.producers[0].renewed == after, 20)
            assert [r.event for r in caplog.records] == ["segment_renewed"]
            assert "new segment" in str(hub.status.explain())
            assert producer.write(first + 2) == first + 2
            assert [v for batch in ending.batches() for v in batch.data.tolist()] == [first, first + 1]
            while seen[-1] != first + 2:
                seen += next(following.batches(timeout=20)).data.tolist()
            assert seen == [first, first + 1, first + 2]
            assert following.lost == 0
            wait_until(lambda: hub.find("x").liveness == "alive", 20)
            following.close()
            ending.close()
            wait_until(lambda: runtime.find_live() is not None, 20, "the connection file")


@pytest.mark.fault(41)
def test_41_one_broker_of_a_name(fault: Fault, hub: Hub, wait_until: Wait) -> None:
    before = runtime.find_live()
    for _ in fault.each([0]):
        shutil.rmtree(os.environ["LABHUB_RUNTIME_DIR"])
        fault.happened()
        with pytest.raises(LabHubError, match=f"runs already: pid {before.pid}"), runtime.claimed("default"):
            pass
        assert start_broker().pid == before.pid
        wait_until(lambda: runtime.find_live() == before, 20, "the connection file, again")
        again = subprocess.run(
            [sys.executable, "-m", "labhub.cli", "broker", "run"],
            timeout=60,
            check=False,
            capture_output=True,
            text=True,
        )
        assert again.returncode == 1
        assert f"runs already: pid {before.pid}" in again.stderr


@pytest.mark.fault(41)
def test_41_without_room_it_says_so_and_goes_on_later(fault: Fault, hub: Hub, wait_until: Wait) -> None:
    with hub.producer("x", dtype="i8", capacity=64) as producer:
        for _ in fault.each([0]):
            shutil.rmtree(segment_directory())
            Path(segment_directory()).touch()  # in whose place no directory can be made
            fault.happened()
            wait_until(lambda: hub.status.producers[0].trouble.startswith("its file was removed"), 20)
            with pytest.raises(ClosedError):
                producer.write(0)
            Path(segment_directory()).unlink()
            wait_until(lambda: hub.status.producers[0].renewed == 1, 20)
            assert producer.write(0) == 0
