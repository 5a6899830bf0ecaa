"""A program whose main thread ends while a daemon thread is inside labhub: ``exiting.py WHAT LEVEL``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

early = tempfile.TemporaryDirectory()  # has a finalizer, so that weakref's exit function is older than labhub's

import labhub  # noqa: E402
from labhub.datablock.consumer import open_consumer  # noqa: E402
from labhub.datablock.producer import open_producer  # noqa: E402

RECORD = {"a": 1.0, "b": 2}
SCHEMA = labhub.Schema.infer(RECORD)
WRITES = ("write", "write converted", "write many", "write slot", "write sealed", "write handle")
READS = ("batches", "parts", "datasets", "views", "slot", "latest", "async", "handle", "nothing waits")
HUB = ("write", "write many", "write slot", "batches", "parts", "datasets", "slot", "latest", "async", "watch", "ask")

Work = Callable[[], object]
kept: list[Any] = []  # what is open when the program ends


def for_ever(call: Work) -> Work:
    def work() -> None:
        while True:
            call()

    return work


def exhaust(iterable: Callable[[], Any]) -> Work:
    def work() -> None:
        for _ in iterable():
            pass

    return work


def asynchronous(reader: Any) -> Work:
    async def read() -> None:
        async for _ in reader.batches():
            pass

    return lambda: asyncio.run(read())


def write_slot(producer: Any) -> None:
    with producer.slot() as slot:
        slot.array[...] = 0


def read_slot(reader: Any) -> None:
    with reader.slot():
        pass


def work_on(producer: Any, reader: Any, hub: Any) -> dict[str, Work]:
    many = np.zeros(3, SCHEMA.dtype)
    return {
        "write": for_ever(lambda: producer.write(many[0])),
        "write converted": for_ever(lambda: producer.write(RECORD)),
        "nothing waits": for_ever(lambda: producer.write(RECORD)),
        "write sealed": for_ever(lambda: producer.write(RECORD)),
        "write many": for_ever(lambda: producer.write_many(many)),
        "write slot": for_ever(lambda: write_slot(producer)),
        "write handle": for_ever(lambda: producer.release_write_slot(producer.acquire_write_slot(-1))),
        "batches": exhaust(lambda: reader.batches()),
        "parts": exhaust(lambda: reader.batches(min_slots=100)),
        "datasets": exhaust(lambda: reader.datasets()),
        "views": exhaust(lambda: reader.views()),
        "slot": for_ever(lambda: read_slot(reader)),
        "latest": for_ever(lambda: reader.latest()),
        "handle": for_ever(lambda: reader.acquire_consume_slot(-1)),
        "async": asynchronous(reader),
        "watch": exhaust(lambda: hub.watch()),
        "ask": for_ever(lambda: hub.channels()),
    }


def main(what: str, level: str) -> None:
    hub = None
    mode: Any = "lossless" if what.startswith("write") else "stream"
    options: dict[str, Any] = {"capacity": 4, "timeout": None, "evict_after": None}
    options["checksum"] = "enforced" if what == "write sealed" else "none"
    if level == "hub":
        hub = labhub.connect()
        producer: Any = hub.producer("x", like=RECORD, **options)
        reader: Any = hub.consumer("x", mode=mode)
    else:
        producer = open_producer("x", SCHEMA, **options)
        reader = open_consumer("x", SCHEMA, mode=mode)
    if not (what.startswith("write") or what in ("latest", "nothing waits")):
        producer.write(RECORD)
    kept.extend((hub, producer, reader))
    began = threading.Event()
    work = work_on(producer, reader, hub)[what]
    threading.Thread(target=lambda: (began.set(), work()), daemon=True).start()
    began.wait(60)
    sys.stdin.readline()  # the test says when
    sys.stdout.write("ends\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
