"""34: what happens to a recorder does not happen to the acquisition, and its store says what is missing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from labhub import runtime
from labhub.hub import Hub, connect, named_broker
from labhub.recording import Recording
from tests.conftest import wait_until
from tests.faults import broker_processes
from tests.faults.children import stopped
from tests.faults.recorder import CHANNEL, SLOT, slots
from tests.faults.recordings import (
    AT_ONCE,
    CAPACITY,
    PATIENCE,
    Acquisition,
    Recorder,
    checked,
    committed,
    verified,
)
from tests.faults.rounds import Fault

SMALL_DISK = 8 * 1024 * 1024
ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def hub(private_dirs: Path) -> Iterator[Hub]:
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        with connect() as hub:
            yield hub


@pytest.mark.fault(34, quick=2, full=40)
def test_34_recorder_killed_at_random_moments(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    chance = random.Random(34)
    acquisition = Acquisition(hub)
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        with Recorder(store) as recorder:
            recorder.begin(acquisition)
            begun = acquisition.producer.next_seq
            acquisition.go_on(lambda: committed(store))  # noqa: B023  it ends within the round
            acquisition.go_on_for(chance.uniform(0.0, 1.2))
            recorder.kill()
            fault.happened()
        end = acquisition.producer.next_seq
        with fault.recovery():
            evictions = acquisition.producer.stats()["evictions"]
            acquisition.go_on(lambda: acquisition.producer.stats()["evictions"] > evictions)  # noqa: B023
        first, behind = checked(store).span
        assert first <= begun
        assert first < behind <= end
        judge_the_rest(store, behind - first)
        shutil.rmtree(store)
    acquisition.judge()


def outcome_of_a_recorder_that_cannot_go_on(acquisition: Acquisition, recorder: Recorder, reason: int) -> int:
    """Wait for its end; check its books and that nobody was held up; how many slots are stored."""
    told = recorder.outcome(acquisition)
    assert told["errno"] == reason
    assert told["stored"] + told["lost"] == told["read"]
    assert told["lost"] > 0
    evictions = acquisition.producer.stats()["evictions"]
    acquisition.go_round()
    assert acquisition.producer.stats()["evictions"] == evictions  # it left in order, and held nobody up
    return told["stored"]


def judge_the_rest(store: Path, stored: int) -> None:
    """What is stored is what the recorder said; it is whole, and proven."""
    books = checked(store)
    assert (books.stored, books.missing) == (stored, {})
    said = verified(store)
    assert said["good"]
    assert not said["complete"]


@pytest.mark.fault(34, quick=1, full=5)
def test_34_recorder_with_a_full_disk(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size={SMALL_DISK} tmpfs "{tmp_path}"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("no private mount namespace here")
    acquisition = Acquisition(hub)
    for _ in fault.each_round():
        # Without a fork in between: the process that is waited for is the recorder.
        wrapper = ("unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh")
        with Recorder(tmp_path / "run.zarr", *wrapper) as recorder:
            recorder.begin(acquisition)
            stored = outcome_of_a_recorder_that_cannot_go_on(acquisition, recorder, errno.ENOSPC)
            fault.happened()
            store = Path(f"/proc/{recorder.process.pid}/root{tmp_path}/run.zarr")
            assert stored
            judge_the_rest(store, stored)
    acquisition.judge()


@pytest.mark.fault(34, quick=1, full=5)
def test_34_recorder_whose_files_may_not_grow(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    acquisition = Acquisition(hub)
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        with Recorder(store) as recorder:
            recorder.begin(acquisition)
            acquisition.go_on(lambda: committed(store))  # noqa: B023
            recorder.say("limit 4096")
            stored = outcome_of_a_recorder_that_cannot_go_on(acquisition, recorder, errno.EFBIG)
            fault.happened()
        judge_the_rest(store, stored)
    acquisition.judge()


@pytest.mark.fault(34, quick=1, full=5)
def test_34_recorder_whose_store_becomes_read_only(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    # Root without the capability to pass over permissions is as good as anybody else.
    as_anybody = () if os.getuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    if as_anybody and subprocess.run([*as_anybody, "true"], capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("this root cannot give up its capabilities")
    acquisition = Acquisition(hub)
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        with Recorder(store, *as_anybody) as recorder:
            recorder.begin(acquisition)
            acquisition.go_on(lambda: committed(store))  # noqa: B023
            for directory in (store, *(p for p in store.rglob("*") if p.is_dir())):
                directory.chmod(0o500)
            stored = outcome_of_a_recorder_that_cannot_go_on(acquisition, recorder, errno.EACCES)
            fault.happened()
        assert stored
        judge_the_rest(store, stored)
        for directory in (store, *(p for p in store.rglob("*") if p.is_dir())):
            directory.chmod(0o700)  # pytest removes them
    acquisition.judge()


@pytest.mark.fault(34, quick=1, full=5)
def test_34_recorder_whose_store_is_removed(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    acquisition = Acquisition(hub)
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        with Recorder(store) as recorder:
            recorder.begin(acquisition)
            acquisition.go_on(lambda: committed(store))  # noqa: B023
            store.rename(tmp_path / "moved")
            fault.happened()
            # What is no longer where it was to be is not stored, the slots committed before included.
            assert outcome_of_a_recorder_that_cannot_go_on(acquisition, recorder, errno.ENOENT) == 0
        assert not store.exists()
        moved = checked(tmp_path / "moved")
        assert moved.stored
        judge_the_rest(tmp_path / "moved", moved.stored)
        shutil.rmtree(tmp_path / "moved")
    acquisition.judge()


@pytest.mark.fault(34, quick=1, full=20)
@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_34_recorder_too_slow(fault: Fault, hub: Hub, tmp_path: Path, lossless: bool) -> None:
    """A lossy one is overtaken, a lossless one evicted; either says exactly how much it did not see."""
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        said: list[Any] = []
        producer = hub.producer(CHANNEL, dtype=SLOT, capacity=CAPACITY, lossless=lossless, evict_after=0.2)
        with producer, Recorder(store) as recorder:
            wait_until(lambda: recorder.said() == "ready", PATIENCE)
            with stopped(recorder.process.pid):
                for _ in range(3 * CAPACITY // AT_ONCE):
                    producer.write_many(slots(producer.next_seq, AT_ONCE))
            producer.write_many(slots(producer.next_seq, AT_ONCE))
            written = producer.next_seq
            recorder.say("stop")
            wait_until(lambda: said.append(recorder.said()) or said[-1], PATIENCE)  # noqa: B023
        told = said[-1]
        assert told["missing"] > 0
        fault.happened()
        assert told["lost"] == 0
        assert told["stored"] + told["missing"] == written
        books = checked(store)
        assert books.stored == told["stored"]
        assert books.missing == {"evicted" if lossless else "lapped": told["missing"]}
        assert verified(store)["complete"]
        shutil.rmtree(store)


def produce(pipe: broker_processes.Connection) -> None:
    """Write slots until told to end, and say what the next seq was at the beginning and is at the end."""
    with connect() as hub, hub.producer(CHANNEL, dtype=SLOT, capacity=CAPACITY, evict_after=None, timeout=60) as p:
        pipe.send(p.next_seq)
        while not pipe.poll(0.001):
            p.write_many(slots(p.next_seq, AT_ONCE))
        pipe.send(p.next_seq)
    pipe.send("closed")
    pipe.recv()


def finished(producer: broker_processes.Actor) -> int:
    """End a producer in order; how many slots there were."""
    producer.say("end")
    written: int = producer.hear()
    assert producer.hear() == "closed"
    return written


def record_a_ring_more(recording: Recording) -> None:
    """Wait until a recording has read so many slots that it must have followed."""
    enough = recording.status.n_slots + 2 * CAPACITY
    wait_until(lambda: recording.status.n_slots >= enough, PATIENCE, "the recording of what comes")


@contextmanager
def recorded(hub: Hub, store: Path) -> Iterator[Recording]:
    """A recording of the channel, as soon as there is one; stopped in order, with everything that it read stored."""
    hub.wait_for(CHANNEL, timeout=PATIENCE)
    with hub.record(CHANNEL, store=store) as recording:
        record_a_ring_more(recording)
        yield recording
    books, status = checked(store), recording.status
    assert recording.errors == {}
    assert (books.stored, sum(books.missing.values())) == (status.stored, status.missing)
    assert status.stored == status.n_slots
    assert verified(store)["complete"]


@pytest.mark.fault(34, quick=1, full=20)
def test_34_producer_killed_and_taken_over_while_recorded(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        with broker_processes.Actor(produce) as first:
            assert first.hear() == 0
            with recorded(hub, store) as recording:
                first.kill()
                with broker_processes.Actor(produce) as second:
                    assert second.hear() > 0  # it took over
                    fault.happened()
                    record_a_ring_more(recording)
                    written = finished(second)
        books = checked(store)
        assert books.span[1] == written
        assert books.stored == written - books.span[0]
        assert books.missing == {}
        assert books.epochs == [1, 2]
        shutil.rmtree(store)


@pytest.mark.fault(34, quick=1, full=20)
def test_34_producer_closed_and_opened_again_while_recorded(fault: Fault, hub: Hub, tmp_path: Path) -> None:
    for k in fault.each_round():
        store = tmp_path / f"{k}.zarr"
        written = []
        with broker_processes.Actor(produce) as first:
            assert first.hear() == 0
            with recorded(hub, store) as recording:
                written.append(finished(first))
                with broker_processes.Actor(produce) as second:
                    assert second.hear() == 0  # another segment
                    fault.happened()
                    record_a_ring_more(recording)
                    written.append(finished(second))
        books = checked(store)
        assert books.stored + sum(books.missing.values()) == sum(written) - books.span[0]
        assert set(books.missing) <= {"restarted"}  # what the second wrote before the recorder had found it
        assert books.epochs == [1, 2]
        shutil.rmtree(store)


@pytest.mark.fault(34, quick=1, full=20)
def test_34_broker_killed_and_restarted_while_recorded(fault: Fault, private_dirs: Path, tmp_path: Path) -> None:
    service, _ = broker_processes.start()
    with ExitStack() as stack:
        stack.callback(lambda: service.kill())  # whichever it is then
        hub = stack.enter_context(connect())
        for k in fault.each_round():
            store = tmp_path / f"{k}.zarr"
            with broker_processes.Actor(produce) as producer:
                assert producer.hear() == 0
                with recorded(hub, store) as recording:
                    service.kill()
                    assert runtime.find_live() is None
                    fault.happened()
                    record_a_ring_more(recording)
                    service, _ = broker_processes.start()
                    record_a_ring_more(recording)
                    written = finished(producer)
            books = checked(store)
            assert books.stored == written - books.span[0]
            assert books.missing == {}
            shutil.rmtree(store)
        hub.close()
        service.end()
