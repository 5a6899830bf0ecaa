"""Every call of labhub that can block, in the situations in which it does; for a process that is interrupted there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from labhub import Messenger, ProducerInfo, Schema, runtime
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.doctor import examine
from labhub.errors import AuthenticationError
from labhub.hub import ChannelEvent, Consumer, connect, start_broker, stop_broker
from labhub.transport.curve import KeyPair
from tests.conftest import wait_until
from tests.faults.broker_processes import ANY_PORT, PATIENCE

Calls = dict[str, tuple[Callable[[], object], Callable[[], object]]]
"""What blocks, and what must work after it was interrupted."""

NUMBER = Schema.infer(dtype="i8")
FULL = 4


def obey(pipe: Connection, scene: str) -> None:
    """Make calls as told, and say when each was interrupted; whatever else happens is said in words."""
    with SCENES[scene]() as calls:
        pipe.send(list(calls))
        while (name := pipe.recv()) is not None:
            call, check = calls[name]
            try:
                try:
                    pipe.send("in")
                    call()
                    outcome: object = "it was not interrupted"
                except KeyboardInterrupt:
                    outcome = time.monotonic()
                check()
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
                "write": (lambda: p.write(-1), check),
                "write_many": (lambda: p.write_many([-1] * 6), check),
                "slot for writing": (lambda: p.slot().__enter__(), check),
                "acquire_write_slot": (lambda: block.acquire_write_slot(-1), lambda: check(block, reader)),
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

        def read(mode: str, wait: Callable[[Consumer], object]) -> tuple[Callable[[], object], Callable[[], object]]:
            consumer = stack.enter_context(hub.consumer("x", mode=mode))

            def check() -> None:
                consumer.snapshot()
                seq = p.write(p.next_seq)
                for batch in consumer.batches(timeout=PATIENCE):  # of the others' checks, too, and none is missing
                    if batch.seq[-1] == seq:
                        break
                assert consumer.lost == 0 or mode == "latest"

            return lambda: drained(consumer, wait), check

        yield {
            "batches": read("stream", lambda c: next(c.batches())),
            "batches of many": read("stream", lambda c: next(c.batches(min_slots=5))),
            "batches, lossless": read("lossless", lambda c: next(c.batches())),
            "batches, latest": read("latest", lambda c: next(c.batches())),
            "datasets": read("stream", lambda c: next(c.datasets())),
            "async for": read("stream", lambda c: asyncio.run(first_of(c))),
            "slot for reading": read("stream", lambda c: c.slot().__enter__()),
            "slot for reading, lossless": read("lossless", lambda c: c.slot().__enter__()),
            "views": (lambda: next(reader.views()), lambda: level(block, reader)),
            "acquire_consume_slot": (lambda: reader.acquire_consume_slot(-1), lambda: level(block, reader)),
            "latest": latest(stack.enter_context(hub.consumer("empty")), empty),
            "follow": follow(stack, hub),
        }


def drained(consumer: Consumer, wait: Callable[[Consumer], object]) -> object:
    while consumer.lag:
        next(consumer.batches(timeout=PATIENCE))
    return wait(consumer)


async def first_of(consumer: Consumer) -> object:
    return await anext(consumer.batches())


def level(block: DataBlockProducer, reader: DataBlockConsumer) -> None:
    seq = block.write(7)
    assert next(reader.batches(timeout=PATIENCE)).seq.tolist() == [seq]


def latest(consumer: Consumer, producer: object) -> tuple[Callable[[], object], Callable[[], object]]:
    return consumer.latest, lambda: producer.closed or consumer.snapshot()


def follow(stack: contextlib.ExitStack, hub: object) -> tuple[Callable[[], object], Callable[[], object]]:
    """A reader whose channel has ended, and may come back."""
    with hub.producer("coming.and.going", dtype="i8"):
        consumer = stack.enter_context(hub.consumer("coming.and.going", follow=True))

    def check() -> None:
        with hub.producer("coming.and.going", dtype="i8") as again:
            again.write(1)
            assert next(consumer.batches(timeout=PATIENCE)).data.tolist() == [1]

    return lambda: next(consumer.batches()), check


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

        def stopped(call: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> Callable[[], object]:
            def with_a_silent_broker() -> object:
                prepare()
                os.kill(found.pid, signal.SIGSTOP)
                return call()

            return with_a_silent_broker

        def check() -> None:
            os.kill(found.pid, signal.SIGCONT)
            messenger.deregister_producer("z")
            wait_until(lambda: [c.name for c in hub.channels()] == ["x"], PATIENCE, "the directory as it was")
            assert os.listdir(segment_directory()) == ["x"]
            for kind in ("appeared", "gone"):  # behind whatever the interrupted calls have caused
                with hub.producer("new", dtype="i8") if kind == "appeared" else contextlib.nullcontext():
                    wait_until(lambda kind=kind: of_new(next(watch)) == kind, PATIENCE, f"new has {kind}")
            assert p.write(1) == p.next_seq - 1

        def of_new(event: ChannelEvent) -> str:
            return event.kind if event.channel == "new" else ""

        def another_hub() -> None:
            other = connect("other", endpoint=found.endpoint, public_key=found.public_key)
            ends = [other.producer(f"other{k}", dtype="i8") for k in range(3)]
            closing[:] = [other, ends, [other.consumer(f"other{k}") for k in range(3)], other.watch()]

        def news() -> None:
            closing[:] = [hub.producer("more", dtype="i8")]

        def check_closed() -> None:
            os.kill(found.pid, signal.SIGCONT)
            if closing:  # else it came before there was something to close
                closing[0].close()
                closing.clear()
            wait_until(lambda: [c.name for c in hub.channels()] == ["x"], PATIENCE, "the directory as it was")
            check()

        calls: Calls = {
            "channels": (stopped(hub.channels), check),
            "find": (stopped(lambda: hub.find("x")), check),
            "schema": (stopped(lambda: hub.schema("x")), check),
            "producer": (stopped(lambda: hub.producer("z", dtype="i8")), check),
            "consumer": (stopped(lambda: hub.consumer("x")), check),
            "watch": (stopped(lambda: hub.watch()), check),
            "next of a watch": (stopped(lambda: next(watch)), check),
            "async for of a watch": (stopped(lambda: asyncio.run(anext_of(watch))), check),
            "wait_for": (stopped(lambda: hub.wait_for("never", timeout=None)), check),
            "connect": (stopped(lambda: connect("o", endpoint=found.endpoint, public_key=found.public_key)), check),
            "connect(start=True)": (stopped(lambda: connect("default", start=True)), check),
            "connect to a mute port": (lambda: knock(mute.getsockname()[1]), check),
            "discover_producer": (stopped(lambda: messenger.discover_producer("x", 60_000)), check),
            "register_producer": (stopped(lambda: messenger.register_producer("z", info).result()), check),
            "metrics": (stopped(lambda: messenger.query_metrics("x")), check),
            "close of a producer": (stopped(lambda: closing[0].close(), news), check_closed),
            "close of a hub": (stopped(lambda: closing[0].close(), another_hub), check_closed),
            "doctor": (stopped(lambda: list(examine())), check),
        }
        yield calls


async def anext_of(watch: object) -> object:
    return await anext(watch)


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

    def stop() -> None:
        os.kill(runtime.find("deaf").pid, signal.SIGSTOP)
        stop_broker("deaf")

    def check_stopped() -> None:
        os.kill(runtime.find("deaf").pid, signal.SIGCONT)
        wait_until(lambda: runtime.find("deaf") is None, PATIENCE, "the end of the broker that was told to stop")
        start_broker("deaf", ANY_PORT)

    start_broker("deaf", ANY_PORT)
    yield {
        "start_broker": (lambda: start_broker("other", ANY_PORT), check),
        "stop_broker": (stop, check_stopped),
    }
    stop_broker("deaf")


SCENES = {
    scene.__name__.replace("_", " "): scene for scene in (full_ring, quiet_channel, silent_broker, start_and_stop)
}
