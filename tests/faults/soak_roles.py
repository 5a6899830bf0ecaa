"""The processes of the soak: ``python -m tests.faults.soak_roles ROLE``.

Each works until its standard input ends, and prints its books as one line of JSON then.
"""

from __future__ import annotations

import contextlib
import json
import select
import sys
import time
from collections.abc import Callable

import numpy as np

import labhub
from labhub.errors import BrokerUnreachable, ChannelNotFound, TimeoutExpired
from tests.faults.recorder import CHANNEL, SLOT, slots

CAPACITY = 1024
AT_ONCE = 32
PERIOD = 0.02
"""How long the producer rests between two writes (in seconds)."""
HOUR = 3600 * 1000
"""Slots of an hour at 1 kHz."""
Books = dict[str, int]
RESTARTING = (BrokerUnreachable, ChannelNotFound, TimeoutExpired)
"""What a question to the broker may end in while that is being restarted, or has not been told its channels again."""


def ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def produce() -> Books:
    """Write, in a rhythm, whatever the broker does; lossless readers may make it wait."""
    with labhub.connect() as hub, hub.producer(CHANNEL, dtype=SLOT, capacity=CAPACITY, evict_after=None) as producer:
        print("ready", flush=True)
        slowest = 0.0
        while not select.select([sys.stdin], [], [], PERIOD)[0]:
            began = time.monotonic()
            producer.write_many(slots(producer.next_seq, AT_ONCE))
            slowest = max(slowest, time.monotonic() - began)
        stats = producer.stats()
        # Readers drain the ring after the stream has ended, and say how far they came.
        return {"produced": producer.next_seq, "evictions": stats["evictions"], "slowest_ms": round(slowest * 1e3)}


def produce_an_hour() -> Books:
    """Write the slots of an hour at 1 kHz, as fast as the reader lets it, once there is a line on standard input."""
    with labhub.connect() as hub, hub.producer(CHANNEL, dtype=SLOT, capacity=CAPACITY, evict_after=None) as producer:
        print("ready", flush=True)
        sys.stdin.readline()
        while producer.next_seq < HOUR:
            producer.write_many(slots(producer.next_seq, min(500, HOUR - producer.next_seq)))
        stats = producer.stats()
        return {"produced": producer.next_seq} | {name: stats[name] for name in ("blocked", "timeouts", "evictions")}


def consume(mode: str, most: int) -> Books:
    """Read to the end of the stream, and check each slot."""
    with labhub.connect() as hub, hub.consumer(CHANNEL, mode=mode) as consumer:
        began = expected = consumer.cursor
        received = 0
        print("ready", flush=True)
        for batch in consumer.batches(max_slots=most):
            assert batch.seq[0] == expected + batch.lost
            assert (np.diff(batch.seq) == 1).all()
            assert (batch.data == slots(int(batch.seq[0]), len(batch))).all()
            expected = int(batch.seq[-1]) + 1
            received += len(batch)
            if mode != "lossless":
                ended() or time.sleep(0.2)  # slow on purpose: it is lapped again and again
        # What was overwritten behind the last batch is counted, too.
        return {"began": began, "received": received, "lost": consumer.lost}


def look_back() -> Books:
    """Read history as widgets do, with a reader anew each time, and compare it."""
    looks = 0
    with labhub.connect() as hub, hub.consumer(CHANNEL) as consumer:
        print("ready", flush=True)
        while not ended():
            for batch in (consumer.snapshot(last=500), consumer.snapshot(seconds=0.2)):
                assert (batch.data == slots(int(batch.seq[0]), len(batch))).all() if len(batch) else True
            with contextlib.suppress(*RESTARTING):
                hub[CHANNEL].to_xarray(last=100)
            looks += 1
            time.sleep(0.01)
    return {"looks": looks}


def churn() -> Books:
    """Connect, register, read, watch, withdraw and leave, again and again."""
    cycles = refused = 0
    print("ready", flush=True)
    while not ended():
        try:
            once(f"churn.{cycles % 7}")
            cycles += 1
        except RESTARTING:
            refused += 1
            time.sleep(0.05)
    return {"cycles": cycles, "refused": refused}


def once(name: str) -> None:
    with labhub.connect(timeout=2) as hub:
        with hub.producer(name, dtype="f8", capacity=64) as producer, hub.consumer(name) as consumer:
            with hub.watch("churn.*") as watch:
                assert next(watch).kind == "appeared"
            producer.write(1.0)
            assert next(consumer.batches(timeout=20)).data.tolist() == [1.0]
            assert hub.status


ROLES: dict[str, Callable[[], Books]] = {
    "producer": produce,
    "hour": produce_an_hour,
    "lossless": lambda: consume("lossless", 256),
    "lossy": lambda: consume("stream", 64),
    "history": look_back,
    "churn": churn,
}

if __name__ == "__main__":
    print(json.dumps(ROLES[sys.argv[1]]()), flush=True)
