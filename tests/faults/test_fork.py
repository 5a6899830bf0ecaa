"""A forked child: it may not use what its parent opened, hurts nothing by leaving, and keeps no lock alive."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

import psutil
import pytest

from labhub import Messenger, ProducerInfo, Schema, _native, diagnose, runtime
from labhub.datablock.batch import Batch
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.datablock.reading import ReadSlot
from labhub.datablock.writing import WriteSlot
from labhub.errors import ConcurrentUseError, ForkedProcessError
from labhub.hub import Hub, Watch, connect, start_broker, stop_broker
from labhub.hub.consumers import Consumer
from labhub.hub.producers import Producer
from tests.conftest import wait_until
from tests.faults.children import Child, Report
from tests.faults.rounds import Fault

NUMBER = Schema.infer(dtype="i8")
LIMIT = 60  # s; a child that hangs is ended by an alarm

Work = Callable[[], object]


def by_os_fork(work: Work) -> int:
    """Run `work` in a forked child; its exit code, 0 if nothing was raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(LIMIT)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def by_multiprocessing(work: Work) -> int | None:
    """Do the same through multiprocessing, which runs `work` with a standard input and finalizers of its own."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(LIMIT)
    child.kill()
    child.join(60)
    return child.exitcode


# ------------------------------------------------------------------------------------------------------- use in a child


@dataclass
class Opened:
    """Everything that a process can have open when it forks."""

    producer: DataBlockProducer
    consumer: DataBlockConsumer
    waiting: DataBlockConsumer
    batch: Batch
    write_slot: WriteSlot
    read_slot: ReadSlot
    views: _native.Views
    hub: Hub
    hub_producer: Producer
    hub_consumer: Consumer
    watch: Watch
    messenger: Messenger


@pytest.fixture
def opened() -> Iterator[Opened]:
    found = start_broker(endpoint="tcp://127.0.0.1:0")
    with ExitStack() as stack:
        stack.callback(stop_broker)
        enter: Callable[[Any], Any] = stack.enter_context
        producer = enter(open_producer("x", NUMBER))
        views = enter(open_consumer("x", NUMBER)).views(timeout=1)
        reader = enter(open_consumer("x", NUMBER))
        consumer = enter(open_consumer("x", NUMBER, mode="lossless"))
        producer.write(5)
        assert next(views) == 5
        writing = open_producer("writing", NUMBER)
        waiting = open_consumer("writing", NUMBER)
        thread = threading.Thread(target=read_to_the_end, args=[waiting])
        thread.start()
        stack.callback(thread.join)
        enter(writing)
        wait_until(lambda: in_use(waiting), LIMIT)  # and it stays inside the call while this process forks
        hub = enter(connect())
        messenger = enter(Messenger())
        assert messenger.connect(found.endpoint, found.public_key)
        yield Opened(
            producer,
            consumer,
            waiting,
            next(consumer.batches()),
            writing.slot().__enter__(),
            reader.slot().__enter__(),
            views,
            hub,
            enter(hub.producer("y", dtype="i8")),
            enter(hub.consumer("y", mode="lossless")),
            enter(hub.watch()),
            messenger,
        )


def read_to_the_end(consumer: DataBlockConsumer) -> None:
    try:
        assert [batch.data.tolist() for batch in consumer] == [[9]]
    except ConcurrentUseError:  # from `in_use`, which looked at that moment
        read_to_the_end(consumer)


def in_use(consumer: DataBlockConsumer) -> bool:
    try:
        consumer.seek("newest")
    except ConcurrentUseError:
        return True
    return False


OTHER = ProducerInfo(shm_name="other", producer_pid=1, schema_hash=bytes(32), schema_version=1)

REFUSED: dict[str, Callable[[Opened], object]] = {
    "producer.write": lambda o: o.producer.write(1),
    "producer.write_many": lambda o: o.producer.write_many([1, 2]),
    "producer.slot": lambda o: o.producer.slot().__enter__(),
    "producer.acquire_write_slot": lambda o: o.producer.acquire_write_slot(10),
    "producer.stats": lambda o: o.producer.stats(),
    "write_slot commit": lambda o: o.write_slot.__exit__(None, None, None),
    "consumer.batches": lambda o: next(o.consumer.batches()),
    "consumer.datasets": lambda o: next(o.consumer.datasets()),
    "consumer.latest": lambda o: o.consumer.latest(),
    "consumer.snapshot": lambda o: o.consumer.snapshot(),
    "consumer.slot": lambda o: o.consumer.slot().__enter__(),
    "consumer.views": lambda o: next(o.consumer.views()),
    "consumer.acquire_consume_slot": lambda o: o.consumer.acquire_consume_slot(10),
    "consumer.seek": lambda o: o.consumer.seek("oldest"),
    "consumer in use by a thread": lambda o: next(o.waiting.batches()),
    "read_slot release": lambda o: o.read_slot.__exit__(None, None, None),
    "read_slot.valid": lambda o: o.read_slot.valid,
    "views next": lambda o: next(o.views),
    "hub.producer": lambda o: o.hub.producer("z", dtype="i8"),
    "hub.producer again": lambda o: o.hub.producer("y", dtype="i8"),
    "hub.consumer": lambda o: o.hub.consumer("y"),
    "hub.channels": lambda o: o.hub.channels(),
    "hub.find": lambda o: o.hub.find("y"),
    "hub.wait_for": lambda o: o.hub.wait_for("y"),
    "hub.watch": lambda o: o.hub.watch(),
    "hub[].snapshot": lambda o: o.hub["y"].snapshot(),
    "hub_producer.write": lambda o: o.hub_producer.write(1),
    "hub_producer.write_many": lambda o: o.hub_producer.write_many([1]),
    "hub_producer.slot": lambda o: o.hub_producer.slot().__enter__(),
    "hub_producer.stats": lambda o: o.hub_producer.stats(),
    "hub_consumer.batches": lambda o: next(o.hub_consumer.batches(timeout=1)),
    "hub_consumer.latest": lambda o: o.hub_consumer.latest(1),
    "hub_consumer.slot": lambda o: o.hub_consumer.slot(1).__enter__(),
    "watch next": lambda o: next(o.watch),
    "messenger.connect": lambda o: o.messenger.connect("tcp://127.0.0.1:1", ""),
    "messenger.list_channels": lambda o: o.messenger.list_channels(),
    "messenger.discover_producer": lambda o: o.messenger.discover_producer("y"),
    "messenger.register_producer": lambda o: o.messenger.register_producer("other", OTHER),
    "messenger.deregister_producer": lambda o: o.messenger.deregister_producer("y"),
}


def is_readable(o: Opened) -> None:
    """Memory that the child has inherited is still there."""
    assert o.batch.data.tolist() == [5]
    assert o.batch.to_xarray().sizes["time"] == 1
    assert (o.read_slot.array, o.write_slot.array) == (5, 0)
    repr([o.producer, o.consumer, o.hub, o.hub_producer, o.hub_consumer, o.messenger])


def leave(o: Opened) -> None:
    """What an exception in the child does on its way out of all the blocks."""
    error = EOFError("the child gives up")
    for block in (o.write_slot, o.read_slot):
        block.__exit__(EOFError, error, None)
    for block in (o.watch, o.hub_consumer, o.hub_producer, o.hub, o.messenger, o.consumer, o.waiting, o.producer):
        block.__exit__(EOFError, error, None)


def connect_anew(o: Opened) -> None:
    with connect() as own, Messenger.get_instance() as messenger:
        assert own is not o.hub
        assert messenger is not o.messenger
        assert [channel.name for channel in own.channels()] == ["y"]
        with own.producer("z", dtype="i8") as p, own.consumer("z") as c:
            p.write(3)
            assert next(c.batches(timeout=10)).data.tolist() == [3]


HARMLESS = (is_readable, leave, connect_anew)


def refused(name: str, o: Opened) -> None:
    with pytest.raises(ForkedProcessError):
        REFUSED[name](o)


@pytest.mark.fault(8, share=0.01)
def test_08_fork_and_use_in_the_child(fault: Fault, opened: Opened) -> None:
    cases: list[tuple[str, Work]] = [(name, lambda name=name: refused(name, opened)) for name in REFUSED]
    cases += [(use.__name__, lambda use=use: use(opened)) for use in HARMLESS]
    wrong = [
        f"{fork.__name__}: {name}"
        for fork, (name, work) in fault.each(product((by_os_fork, by_multiprocessing), cases))
        if fork(work) != 0
    ]
    assert wrong == []
    fault.happened(fault.rounds)
    goes_on(opened)


def goes_on(o: Opened) -> None:
    """Whatever the children did, the parent has noticed nothing."""
    o.producer.write_many([6, 7])
    assert next(o.consumer.batches()).data.tolist() == [6, 7]
    assert next(o.views) == 6
    o.write_slot.array[...] = 9
    o.write_slot.__exit__(None, None, None)
    found = diagnose("writing")
    assert (found.head, found.counters["aborts"], found.slots["committed"]) == (1, 0, 1)
    o.read_slot.__exit__(None, None, None)
    o.hub_producer.write(8)
    assert next(o.hub_consumer.batches(timeout=10)).data.tolist() == [8]
    assert next(o.watch).channel == "y"
    (channel,) = o.hub.channels()
    assert (channel.name, channel.liveness, channel.producer_pid, channel.consumers) == ("y", "alive", os.getpid(), 1)
    assert o.messenger.discover_producer("y") is not None


# -------------------------------------------------------------------------------------------------- ends and locks

PARENT = """
    import os, sys, labhub
    from labhub import runtime
    from labhub.errors import LabHubError
    from labhub.hub import named_broker

    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with labhub.connect() as hub, hub.producer("x", dtype="i8") as p, hub.consumer("x", mode="lossless") as c:
            p.write(1)
            with labhub.Messenger.get_instance(), hub.watch() as watch, c.slot() as s:
                if (child := os.fork()) == 0:
                    sys.exit()  # through all these blocks, and all that Python does at its end
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert s.array == 1
            p.write(2)
            assert next(c.batches(timeout=30)).data.tolist() == [2]
            assert hub.find("x").liveness == "alive"
            assert runtime.find_live().endpoint == service.endpoint
            try:
                with named_broker():
                    sys.exit("the broker's name was free")
            except LabHubError:
                print("unaffected")
"""


@pytest.mark.fault(8, quick=2, full=20, share=0.1)
def test_08_fork_and_the_child_ends_normally(fault: Fault) -> None:
    for _ in fault.each_round():
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PARENT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "unaffected\n", "")
        fault.happened()


def open_and_fork(report: Report) -> None:
    """Hold every lock there is, and have a child that lives on."""
    with runtime.claimed("default"), open_producer("x", NUMBER), open_consumer("x", NUMBER, mode="lossless"):
        if (child := os.fork()) == 0:
            signal.alarm(LIMIT)
            signal.pause()
        report(child)
        signal.pause()


@pytest.mark.fault(8, quick=10, full=100, share=0.1, p99=1.0)
def test_08_fork_and_the_parent_is_killed(fault: Fault) -> None:
    for _ in fault.each_round():
        with Child(open_and_fork) as parent:
            child = parent.receive()
            held = diagnose("x")
            assert (held.alive, [reader.alive for reader in held.readers]) == (True, [True])
        try:
            assert psutil.Process(child).status() != psutil.STATUS_ZOMBIE
            fault.happened()
            left = diagnose("x")
            assert (left.alive, [reader.alive for reader in left.readers]) == (False, [False])
            with fault.recovery(), open_producer("x", NUMBER) as successor, runtime.claimed("default"):
                assert successor.took_over
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.fault(8, quick=10, full=100, share=0.1)
def test_08_fork_and_the_parent_closes(fault: Fault) -> None:
    for _ in fault.each_round():
        with ExitStack() as opened:
            for thing in (runtime.claimed("default"), open_producer("x", NUMBER, lossless="single")):
                opened.enter_context(thing)
            opened.enter_context(open_consumer("x", NUMBER, mode="lossless"))
            with Child(lambda report: (report(0), signal.pause())) as child:
                child.receive()
                fault.happened()
                opened.close()
                with runtime.claimed("default"), open_producer("x", NUMBER, lossless="single") as again:
                    assert not again.took_over
                    open_consumer("x", NUMBER, mode="lossless").close()
