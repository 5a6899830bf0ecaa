"""The rows of the table, and everybody who takes part."""

from __future__ import annotations

import latency.catalogue as latency

from bench.contender import Contender
from bench.contenders import datasets, handwritten, iceoryx
from bench.contenders.harness import ReaderAlone
from bench.contenders.momentum import MomentumX
from bench.contenders.native import Bare, Memcpy, Pair, Scan
from bench.contenders.ring import Labhub
from bench.contenders.standard import Pipe, QueueOfBytes
from bench.contenders.zenoh_shm import Zenoh
from bench.contenders.zeromq import ZeroMQ
from bench.workload import Workload

# Name, bytes of a slot, slots in flight one by one, slots of a batch, slots in flight in batches.
SIZES = (
    ("64 B", 64, 512, 1024, 8192),
    ("4 KiB", 4 << 10, 256, 64, 256),
    ("64 KiB", 64 << 10, 16, 8, 32),
    ("1 MiB", 1 << 20, 8, 2, 8),
    ("8 MiB", 8 << 20, 2, 2, 4),  # few: more than fits the caches of the machine measures its memory only
)


def workloads() -> list[Workload]:
    """Return the rows, in the order of the table."""
    rows = []
    for size, nbytes, alone, batch, many in SIZES:
        rows.append(Workload(f"{size}, one by one", "stream", nbytes, 1, alone))
        rows.append(Workload(f"{size}, batches of {batch}", "stream", nbytes, batch, many))
    rows.append(Workload("1 MiB, to 4 consumers", "stream", 1 << 20, 1, 8, consumers=4))
    rows.append(Workload("1 MiB, with a lossy consumer beside", "stream", 1 << 20, 1, 8, lossy=1))
    rows += [
        Workload(f"4 KiB, to {n} consumers", "stream", 4 << 10, 1, 256, consumers=n, peers=False) for n in (2, 8, 64)
    ]
    rows.append(Workload("a look at 64 cursors", "scan", 64, 64, 8, 1_000_000, figure="ns", unit="ns"))
    rows.append(Workload("datasets() of 1000 slots", "datasets", 64, 1000, 4096, 50, figure="ms", unit="ms"))
    return rows + latency.workloads()


def contenders() -> list[Contender]:
    """Return everybody, in the order of the table."""
    return [
        Labhub(),
        datasets.Datasets(),
        Pair(),
        Bare(),
        Memcpy(),
        ReaderAlone(),
        datasets.NumpyCopy(),
        Scan(),
        handwritten.Polling(),
        handwritten.Semaphores(),
        iceoryx.Polling(),
        iceoryx.Event(),
        MomentumX(),
        ZeroMQ(),
        Pipe(),
        QueueOfBytes(),
        Zenoh(),
        *latency.contenders(),
    ]
