"""Brokers, producers, readers and crowds in processes of their own, forked from a server that has labhub already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from labhub.broker import BrokerConfig, BrokerService
from labhub.datablock.consumer import Mode
from labhub.errors import LabHubError
from labhub.hub import connect, named_broker
from labhub.messenger import Messenger, ProducerInfo

ANY_PORT = "tcp://127.0.0.1:0"
PATIENCE = 60.0
"""How long a process may take to say something (in seconds), on a machine where many others are busy."""
WORDS = 16

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["labhub.hub.hub", "labhub.hub.local_broker", "zmq.auth.thread"])


class Actor:
    """A process that runs `work(pipe, *args)`, with this one's environment. Leaving its ``with`` block kills it.

    Not a fork of this process, as `labhub.testing.harness.Remote` is: a hub has threads, and so has whoever tests it.
    """

    def __init__(self, work: Callable[..., None], *args: object) -> None:
        self.pipe, theirs = processes.Pipe()
        self._process = processes.Process(target=_act, args=(work, dict(os.environ), theirs, args), daemon=True)
        self._process.start()
        theirs.close()
        self.pid = self._process.pid

    def hear(self, seconds: float = PATIENCE) -> Any:
        """Return what it says next."""
        assert self.pipe.poll(seconds), f"process {self.pid} said nothing within {seconds} s"
        return self.pipe.recv()

    def say(self, word: object) -> None:
        """Say something to it."""
        self.pipe.send(word)

    def end(self) -> None:
        """Interrupt it, and wait until it has ended in order."""
        os.kill(self.pid, signal.SIGINT)
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is dead. Twice is harmless."""
        self._process.kill()
        self._process.join(60)
        self.pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _act(work: Callable[..., None], environment: dict[str, str], pipe: Connection, args: tuple[object, ...]) -> None:
    os.environ.update(environment)  # the server's is that of an earlier test
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt, EOFError):  # told to end, or nobody is there to tell
        work(pipe, *args)


def serve(pipe: Connection, endpoint: str) -> None:
    """Be a broker, once a word comes: say pid and endpoint; or the error, if it is refused."""
    pipe.send("ready")
    pipe.recv()
    try:
        with named_broker(
            endpoint=endpoint, on_ready=lambda bound_to, _: pipe.send((os.getpid(), bound_to))
        ) as service:
            service.run()
    except LabHubError as error:
        pipe.send(error)
        pipe.recv()


def start(endpoint: str = ANY_PORT) -> tuple[Actor, str]:
    """Start a broker process; the process, and where it listens."""
    actor = Actor(serve, endpoint)
    assert actor.hear() == "ready"
    actor.say("go")
    pid, bound_to = actor.hear()
    assert pid == actor.pid
    return actor, bound_to


@contextlib.contextmanager
def broker(endpoint: str = ANY_PORT) -> Iterator[tuple[Actor, str]]:
    """Run a broker process, and end it in order."""
    actor, bound_to = start(endpoint)
    with actor:
        yield actor, bound_to
        actor.end()


def payload(seq: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the slot of a seq, or the slots of many: each word depends on the seq and on its place."""
    return np.asarray(seq, "u8")[..., None] * np.uint64(0x9E3779B97F4A7C15) + np.arange(WORDS, dtype="u8")


class ProcessorWait:
    """For how long the threads of this process were ready to run and did not; nothing where Linux does not count it."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self.since_last_look()

    def since_last_look(self) -> float:
        """Return it (in seconds), of all threads together."""
        seen = {}
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                seen[task] = int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[1])
        # Thread by thread: the count of one that ended would be missing from a sum, and look like a pause.
        waited = sum(now - self._seen.get(task, 0) for task, now in seen.items())
        self._seen = seen
        return waited / 1e9


def produce(pipe: Connection, channels: list[str], period: float) -> None:
    """Register channels and write to the first one, a slot each `period` (in seconds).

    Says at the end how many slots it wrote, and the longest time between two (in seconds) in which its threads were not
    waiting for a processor: what is left is waiting for somebody, such as a broker.
    """
    with connect(timeout=PATIENCE) as hub:
        # Nobody is evicted and no write gives up: on a busy machine that would be the scheduler's doing.
        options = {"dtype": "u8", "shape": WORDS, "capacity": 4096, "evict_after": None, "timeout": PATIENCE}
        main, *_others = producers = [hub.producer(name, **options) for name in channels]
        pipe.send("ready")
        pipe.recv()
        due = last = time.monotonic()
        processor, worst = ProcessorWait(), 0.0
        while not pipe.poll():
            main.write(payload(main.next_seq))
            now = time.monotonic()
            worst = max(worst, now - last - processor.since_last_look())
            last = now
            due = max(due + period, now - 10 * period)  # what was missed long ago is not caught up with
            time.sleep(max(0.0, due - time.monotonic()))
        pipe.send((main.next_seq, worst))
        for producer in producers:
            producer.close()
    pipe.send("closed")
    pipe.recv()


def consume(pipe: Connection, channel: str, mode: Mode) -> None:
    """Read a channel to its end; say what was received and lost, whether all of it was true, and each slot's time."""
    with connect(timeout=PATIENCE) as hub, hub.consumer(channel, mode=mode) as consumer:
        pipe.send("ready")
        times, received, following, good = [], 0, 0, True
        for batch in consumer.batches():
            good &= bool(batch.seq[0] >= following and (np.diff(batch.seq.astype("i8")) > 0).all())
            good &= bool((batch.data == payload(batch.seq)).all())
            following = int(batch.seq[-1]) + 1
            received += len(batch)
            times.append(batch.timestamp_ns)
        pipe.send((received, consumer.lost, good, np.concatenate(times)))
    pipe.recv()


def crowd(pipe: Connection, place: tuple[str, str], names: list[list[str]], asks: int) -> None:
    """Be many clients: each registers its names, then looks up names of all; say how long each look took."""
    everything = [name for own in names for name in own]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(names)) as pool:
        clients = [stack.enter_context(Messenger()) for _ in names]
        for client in clients:
            assert client.connect(*place, timeout=PATIENCE)

        def register(client: Messenger, own: list[str]) -> None:
            for name in own:
                client.register_producer(name, ProducerInfo(name, os.getpid(), bytes(32), 1)).result(PATIENCE)

        def look(client: Messenger) -> list[float]:
            took = []
            for name in random.choices(everything, k=asks):
                began = time.monotonic()
                assert client.discover_producer(name, timeout_ms=int(PATIENCE * 1000)) is not None
                took.append(time.monotonic() - began)
            return took

        list(pool.map(register, clients, names))
        pipe.send("ready")
        pipe.recv()
        pipe.send([seconds for took in pool.map(look, clients) for seconds in took])
        pipe.recv()


def serve_few(pipe: Connection, quota: int) -> None:
    """Be a nameless broker that lets one key register so many channels; say where, and its key."""
    service = BrokerService(
        BrokerConfig(ANY_PORT, max_channels_per_key=quota, on_ready=lambda *place: pipe.send(place))
    )
    service.run()
