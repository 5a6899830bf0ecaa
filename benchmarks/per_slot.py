"""What Python adds to one slot: writing and reading 64 bytes, in units of an empty call into the compiled core.

Run it with ``python benchmarks/per_slot.py [RESULT.json]``. Everything is measured in the same process, one after the
other in each round; the loop's own cost is taken off.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from common import Measure, interleaved, per_call, private_directories, report, summary

from labhub import Schema, _native
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import DataBlockProducer, open_producer

ROUNDS, CALLS, CAPACITY = 31, 4000, 8192
FRAME = Schema.infer(dtype="f8", shape=8)  # 64 bytes


def reading(statement: str, names: dict[str, object], p: DataBlockProducer, c: DataBlockConsumer) -> Measure:
    """Measure a statement that reads one slot; as many as it needs are written first."""
    slots = np.zeros((CALLS, 8))
    loop = per_call(statement, {"c": c, **names}, CALLS)

    def measure() -> float:
        c.seek("newest")
        p.write_many(slots)
        return loop()

    return measure


def stepping(p: DataBlockProducer, c: DataBlockConsumer) -> Measure:
    """Measure a loop over `views`."""
    slots = np.zeros((CALLS, 8))

    def measure() -> float:
        c.seek("newest")
        p.write_many(slots)
        views = c.views(timeout=0)
        passes = range(CALLS)
        began = time.thread_time_ns()
        for _ in zip(passes, views):  # noqa: B905  # the first to end is `passes`
            pass
        return (time.thread_time_ns() - began) / CALLS

    return measure


def main() -> None:
    """Measure and report."""
    with (
        private_directories(),
        open_producer("typed", FRAME, capacity=CAPACITY) as typed,
        open_producer("raw", Schema.raw(64), capacity=CAPACITY) as raw,
        open_consumer("typed", FRAME) as c,
        open_consumer("typed", FRAME) as viewed,
    ):
        array, data = np.zeros(8), bytes(64)
        cases = {
            "loop": per_call("pass", {}, CALLS),
            "empty call": per_call("nothing()", {"nothing": _native.nothing}, CALLS),
            "write(ndarray)": per_call("write(array)", {"write": typed.write, "array": array}, CALLS),
            "write(bytes), raw": per_call("write(data)", {"write": raw.write, "data": data}, CALLS),
            "native write": per_call("write(array, -1, -1)", {"write": typed._native.write, "array": array}, CALLS),
            "with slot()": reading("with c.slot() as s: s.array", {}, typed, c),
            "views()": stepping(typed, viewed),
            "native acquire, release": reading(
                "acquire(False, -1); release()", {"acquire": c._native.acquire, "release": c._native.release}, typed, c
            ),
        }
        found = interleaved(cases, ROUNDS)
    loop = statistics.median(found.pop("loop"))
    costs = {name: summary([v - loop for v in values]) for name, values in found.items()}
    unit = costs["empty call"]["median"]
    rows = [("64 bytes, one slot", "median ns", "min", "max", "empty calls")]
    rows += [
        (name, *(f"{cost[k]:.0f}" for k in ("median", "min", "max")), f"{cost['median'] / unit:.1f}")
        for name, cost in costs.items()
    ]
    report("per_slot", rows, {"rounds": ROUNDS, "calls": CALLS, "ns": costs, "unit_ns": unit})


if __name__ == "__main__":
    main()
