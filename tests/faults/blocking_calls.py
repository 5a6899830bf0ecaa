"""Every call of labhub that can block, in the situations in which it does; for a process that is interrupted there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import psutil

from labhub import Messenger, ProducerInfo, Schema, runtime
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.doctor import examine
from labhub.errors import AuthenticationError
from labhub.hub import Consumer, connect, start_broker, stop_broker
from labhub.transport.curve import KeyPair
from tests.conftest import wait_until
from tests.faults.broker_processes import ANY_PORT, PATIENCE

Do = Callable[[], object]


class Blocking(NamedTuple):
    """What blocks, what must work after it was interrupted, and what comes before."""

    call: Do
    check: Do
    prepare: Do = lambda: None


Calls = dict[str, Blocking]

NUMBER = Schema.infer(dtype="i8")
FULL = 4


def obey(pipe: Connection, scene: str) -> None:
    """Make calls as told, and say when each was interrupted; whatever else happens is said in words."""
    with SCENES[scene]() as calls:
        pipe.send(list(calls))
        while (name := pipe.recv()) is not None:
            blocking = calls[name]
            try:
                blocking.prepare()
                try:
                    pipe.send("in")
                    blocking.call()
                    outcome: object = "it was not interrupted"
                except KeyboardInterrupt:
                    outcome = time.monotonic()
                blocking.check()
            except Exception:  # noqa: BLE001  raised on the other side
                outcome = traceback.format_exc()
            pipe.send(outcome)
    pipe.send("closed")
    pipe.recv()


@contextlib.contextmanager
def full_ring() -> Iterator[Calls]:
    """A lossless reader holds the ring full, and whoever writes waits for it."""
    options = {"capacity": FULL, "timeout": None, "evict_after": None}
    with connect() as hub, hub.producer("x", dtype="i8", **options) as p, hub.consumer("x", mode="lossless") as c:
        with open_producer("y", NUMBER, **options) as block, open_consumer("y", NUMBER, mode="lossless") as reader:
            p.write_many(range(FULL))
            block.write_many(range(FULL))

            def check(producer: object = p, consumer: object = c) -> None:
                """Nothing was written, the slot is free, and the lock, too."""
                head = producer.next_seq
                batch = next(consumer.batches(timeout=PATIENCE))
                assert batch.seq.tolist() == batch.data.tolist() == list(range(head - FULL, head))
                producer.write_many(range(head, head + FULL))

            yield {
                "write": Blocking(lambda: p.write(-1), check),
                "write_many": Blocking(lambda: p.write_many([-1] * 6), check),
                "slot for writing": Blocking(lambda: p.slot().__enter__(), check),
                "acquire_write_slot": Blocking(lambda: block.acquire_write_slot(-1), lambda: check(block, reader)),
            }


@contextlib.contextmanager
def quiet_channel() -> Iterator[Calls]:
    """Nobody writes, and whoever reads waits."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(connect())
        p = stack.enter_context(hub.producer("x", dtype="i8"))
        block = stack.enter_context(open_producer("y", NUMBER))
        reader = stack.enter_context(open_consumer("y", NUMBER))
        empty = stack.enter_context(hub.producer("empty", dtype="i8"))
        hub.producer("gone", dtype="i8").close()

        def read(mode: str, wait: Callable[[Consumer], object]) -> Blocking:
            consumer = stack.enter_context(hub.consumer("x", mode=mode))

            def check() -> None:
                consumer.snapshot()
                seq = p.write(p.next_seq)
                for batch in consumer.batches(timeout=PATIENCE):  # of the others' checks, too, and none is missing
                    if batch.seq[-1] == seq:
                        break
                assert consumer.lost == 0 or mode == "latest"

            return Blocking(lambda: wait(consumer), check, lambda: drain(consumer))

        yield {
            "batches": read("stream", lambda c: next(c.batches())),
            "batches of many": read("stream", lambda c: next(c.batches(min_slots=5))),
            "batches, lossless": read("lossless", lambda c: next(c.batches())),
            "batches, latest": read("latest", lambda c: next(c.batches())),
            "datasets": read("stream", lambda c: next(c.datasets())),
            "async for": read("stream", lambda c: asyncio.run(first_of(c.batches()))),
            "slot for reading": read("stream", lambda c: c.slot().__enter__()),
            "slot for reading, lossless": read("lossless", lambda c: c.slot().__enter__()),
            "views": Blocking(lambda: next(reader.views()), lambda: level(block, reader)),
            "acquire_consume_slot": Blocking(lambda: reader.acquire_consume_slot(-1), lambda: level(block, reader)),
            "latest": latest(stack.enter_context(hub.consumer("empty")), empty),
            "follow": follow(stack, hub),
        }


def drain(consumer: Consumer) -> None:
    while consumer.lag:
        next(consumer.batches(timeout=PATIENCE))


async def first_of(iterator: AsyncIterator[object]) -> object:
    return await anext(iterator)


def level(block: DataBlockProducer, reader: DataBlockConsumer) -> None:
    seq = block.write(7)
    assert next(reader.batches(timeout=PATIENCE)).seq.tolist() == [seq]


def latest(consumer: Consumer, producer: object) -> Blocking:
    return Blocking(consumer.latest, lambda: consumer.snapshot() and producer.next_seq == 0)


def follow(stack: contextlib.ExitStack, hub: object) -> Blocking:
    """A reader whose channel has ended, and may come back."""
    with hub.producer("coming.and.going", dtype="i8"):
        consumer = stack.enter_context(hub.consumer("coming.and.going", follow=True))

    def check() -> None:
        with hub.producer("coming.and.going", dtype="i8") as again:
            again.write(1)
            assert next(consumer.batches(timeout=PATIENCE)).data.tolist() == [1]

    return Blocking(lambda: next(consumer.batches()), check)


@contextlib.contextmanager
def silent_broker() -> Iterator[Calls]:
    """The broker is stopped; nothing that is asked of it is answered."""
    found = runtime.find_live()
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(connect(timeout=PATIENCE))
        p = stack.enter_context(hub.producer("x", dtype="i8"))
        messenger = stack.enter_context(Messenger())
        messenger.connect(found.endpoint, found.public_key)
        watch = stack.enter_context(hub.watch(existing=False))
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        info = ProducerInfo("z", os.getpid(), bytes(32), 1)
        closing: list[object] = []

        def stop() -> None:
            os.kill(found.pid, signal.SIGSTOP)
            # The signal takes a moment to arrive, in which the broker may still answer.
            wait_until(lambda: psutil.Process(found.pid).status() == psutil.STATUS_STOPPED, PATIENCE, "its sleep")

        def check() -> None:
            os.kill(found.pid, signal.SIGCONT)
            messenger.deregister_producer("z")
            wait_until(lambda: [c.name for c in hub.channels()] == ["x"], PATIENCE, "the directory as it was")
            assert os.listdir(segment_directory()) == ["x"]
            with hub.producer("new", dtype="i8"):
                wait_until(lambda: repr(next(watch)) == "ChannelEvent('appeared', 'new')", PATIENCE, "news")
            wait_until(lambda: repr(next(watch)) == "ChannelEvent('gone', 'new')", PATIENCE, "the last news")
            assert p.write(1) == p.next_seq - 1

        def another_hub() -> None:
            other = connect("other", endpoint=found.endpoint, public_key=found.public_key)
            ends = [[other.producer(f"other{k}", dtype="i8"), other.consumer(f"other{k}")] for k in range(3)]
            closing[:] = [other, ends, other.watch()]
            stop()

        def another_producer() -> None:
            closing[:] = [hub.producer("more", dtype="i8")]
            stop()

        def check_closed() -> None:
            closing[0].close()
            closing.clear()
            check()

        calls = {
            "channels": hub.channels,
            "find": lambda: hub.find("x"),
            "schema": lambda: hub.schema("x"),
            "producer": lambda: hub.producer("z", dtype="i8"),
            "consumer": lambda: hub.consumer("x"),
            "watch": lambda: hub.watch(),
            "next of a watch": lambda: next(watch),
            "async for of a watch": lambda: asyncio.run(first_of(watch)),
            "wait_for": lambda: hub.wait_for("never", timeout=None),
            "connect": lambda: connect("o", endpoint=found.endpoint, public_key=found.public_key),
            "connect(start=True)": lambda: connect("default", start=True),
            "connect to a mute port": lambda: knock(mute.getsockname()[1]),
            "discover_producer": lambda: messenger.discover_producer("x", 60_000),
            "register_producer": lambda: messenger.register_producer("z", info).result(),
            "metrics": lambda: messenger.query_metrics("x"),
            "doctor": lambda: list(examine()),
        }
        yield {name: Blocking(call, check, stop) for name, call in calls.items()} | {
            "close of a producer": Blocking(lambda: closing[0].close(), check_closed, another_producer),
            "close of a hub": Blocking(lambda: closing[0].close(), check_closed, another_hub),
        }


def knock(port: int) -> None:
    with contextlib.suppress(AuthenticationError), Messenger() as messenger:
        messenger.connect(f"tcp://127.0.0.1:{port}", KeyPair.random().public, timeout=PATIENCE)


@contextlib.contextmanager
def start_and_stop() -> Iterator[Calls]:
    """A broker process that takes its time to start, and one that does not stop when it is told to."""

    def check() -> None:
        """The one whose start was interrupted may come; there is one, and it can be stopped."""
        pid = start_broker("other", ANY_PORT).pid
        os.kill(pid, signal.SIGCONT)
        with connect("other") as hub:
            assert hub.channels() == []
        assert stop_broker("other").pid == pid

    def start_stopped() -> None:
        os.kill(start_broker("other", ANY_PORT).pid, signal.SIGSTOP)

    def check_stopped() -> None:
        pid = runtime.find("other").pid
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: runtime.find("other") is None, PATIENCE, "the end of the broker that was told to stop")

    yield {
        "start_broker": Blocking(lambda: start_broker("other", ANY_PORT), check),
        "stop_broker": Blocking(lambda: stop_broker("other"), check_stopped, start_stopped),
    }


SCENES = {
    scene.__name__.replace("_", " "): scene for scene in (full_ring, quiet_channel, silent_broker, start_and_stop)
}
