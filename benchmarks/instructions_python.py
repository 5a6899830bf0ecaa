"""The hot calls as Python sees them, each in two loops of different length: what they differ by is the call's own.

`instructions.py` runs this under callgrind; by itself it counts nothing.
"""

from __future__ import annotations

import ctypes
import sys
import timeit
from collections.abc import Callable

counter = ctypes.CDLL(sys.argv[1])
# The first thing of all, while nothing of it is loaded.
counter.begin_counting()
import labhub  # noqa: E402

counter.end_counting(b"libraries/import labhub/1")
counter.begin_counting()
import labhub.hub  # noqa: E402

counter.end_counting(b"libraries/import labhub.hub/1")

import numpy as np  # noqa: E402
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402

from labhub.datablock.consumer import DataBlockConsumer, open_consumer  # noqa: E402
from labhub.datablock.producer import DataBlockProducer, open_producer  # noqa: E402
from labhub.schema import Schema  # noqa: E402

Prepare = Callable[[int], object]
Passes = tuple[int, int, int]
"""How often: to warm up, and in the two loops that are counted."""
CAPACITY = 1024
SHORT: Passes = (CAPACITY, 256, 768)  # once round the ring first: the view of a slot is made at its first use
LONG: Passes = (1, 1, 3)
MANY = 1000
"""Slots of a large batch."""


def count(
    name: str, statement: str, names: dict[str, object], passes: Passes, prepare: Prepare = lambda n: None
) -> None:
    """Count two loops over a statement, after one to warm up; `prepare` is not counted. `name` is ``group/call``."""
    warm, *counted = passes
    prepare(warm)
    timeit.Timer(statement, globals=names).timeit(warm)
    for n in counted:
        prepare(n)
        timeit.Timer(statement, timer=clock(f"{name}/{n}"), globals=names).timeit(n)


def clock(label: str) -> Callable[[], float]:
    """Return what counts a loop that takes it for its clock, which it looks at just before and just after."""
    marks = iter([counter.begin_counting, lambda: counter.end_counting(label.encode())])
    return lambda: next(marks)() or 0.0


def filled(p: DataBlockProducer, c: DataBlockConsumer, slots: int = 1) -> Prepare:
    """Return what lets `c` find enough unread slots for so many passes."""

    def fill(passes: int) -> None:
        c.seek("newest")
        p.write_many(np.zeros((passes * slots, *p.schema.shape), p.schema.dtype))

    return fill


def count_writing() -> None:
    """Count what writes one slot."""
    array = np.zeros(8)
    kinds = {
        "ndarray of 64 B": (Schema.infer(dtype="f8", shape=8), array),
        "bytes": (Schema.raw(64), bytes(64)),
        "float": (Schema.infer(dtype="f8"), 1.5),
        "tuple": (Schema.infer(dtype=[("t", "f8"), ("n", "i4")]), (1.5, 2)),
        "dict": (Schema.infer(dtype=[("t", "f8"), ("n", "i4")]), {"t": 1.5, "n": 2}),
    }
    for kind, (schema, record) in kinds.items():
        with open_producer("write", schema, capacity=CAPACITY) as p:
            count(f"python/p.write({kind})", "p.write(record)", {"p": p, "record": record}, SHORT)
    with open_producer("slot", Schema.infer(dtype="f8", shape=8), capacity=CAPACITY) as p:
        count("python/p.slot()", "with p.slot() as s: s.array", {"p": p}, SHORT)


def count_reading() -> None:
    """Count what reads one slot, or one batch."""
    schema = Schema.infer(dtype="f8", shape=8)
    with open_producer("slots", schema, capacity=CAPACITY) as p, open_consumer("slots", schema) as c:
        count("python/c.slot()", "with c.slot() as s: s.array", {"c": c}, SHORT, filled(p, c))
        names: dict[str, object] = {}
        fill = filled(p, c)

        def iterate(n: int) -> None:
            names.clear()  # leaving an iteration releases its slot
            fill(n)
            names["views"] = c.views(timeout=0)

        count("python/a step of c.views()", "next(views)", names, SHORT, iterate)
        names.clear()
        ones = {"batches": c.batches(max_slots=1)}
        count("python/a batch of 1 slot", "next(batches)", ones, SHORT, fill)
    with open_producer("batches", schema, capacity=4 * MANY) as p, open_consumer("batches", schema) as c:
        fill = filled(p, c, MANY)
        batches, datasets = c.batches(max_slots=MANY), c.datasets(max_slots=MANY)
        count("python/a batch of 1,000 slots", "next(batches)", {"batches": batches}, LONG, fill)
        count("libraries/a dataset of 1,000 slots", "next(datasets)", {"datasets": datasets}, LONG, fill)
        fill(1)
        count("libraries/batch.to_xarray() of 1,000 slots", "batch.to_xarray()", {"batch": next(batches)}, LONG)


def count_magic() -> None:
    """Count what a notebook asks for most often, on a broker of its own."""
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "labhub")
    labhub.hub.start_broker(endpoint="tcp://127.0.0.1:0")
    try:
        with labhub.connect().producer("magic", like=1.5):
            names = {"magic": shell.run_line_magic}
            # Not %hub_discover, which takes another way when half a second has passed since the last one.
            count("libraries/%hub_info", "magic('hub_info', 'magic')", names, (5, 5, 15))
    finally:
        shell.run_line_magic("unload_ext", "labhub")
        labhub.hub.stop_broker()


if __name__ == "__main__":
    count_writing()
    count_reading()
    count_magic()
