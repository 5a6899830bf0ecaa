"""labhub: a slot written, and the next one viewed in place, by a reader that sleeps or polls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from bench.contender import Gate, Place

from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from latency.duplex import CAPACITY, Duplex, Loops, PythonLoops

RECORD = Schema.infer(dtype="i8", shape=8)


class Labhub(Duplex):
    """`write` and `views` of lossless readers."""

    name = "labhub"
    role = "labhub"
    busy_poll = False

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Open a channel for each way; each process writes one and reads the other."""
        directory = str(place.directory)
        own, other = ("there", "back") if place.consumer < 0 else ("back", "there")
        with open_producer(own, RECORD, directory=directory, capacity=CAPACITY, evict_after=None) as producer:
            gate.start()
            with open_consumer(
                other, RECORD, directory=directory, mode="lossless", start="oldest", busy_poll=self.busy_poll
            ) as consumer:
                record = np.zeros(RECORD.shape, RECORD.dtype)
                write, views = producer.write, consumer.views(timeout=30)

                def send(word: int) -> None:
                    record[0] = word
                    write(record)

                yield PythonLoops(send, lambda: next(views).item(0))


class LabhubPolling(Labhub):
    """The same with ``busy_poll=True``."""

    name = "labhub, busy polling"
    busy_poll = True
    sleeps = False
