"""A measurement is the same at the end of every way that it can take, or an error says why not."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import example, given

from labhub.hub import Hub
from tests.property.journey import travel
from tests.property.measurements import Measurement, measurements
from tests.property.profile import examples

NOON = 1_767_225_600_000_000_000


def slots(dtype: Any, values: Any, times: tuple[int, ...] = (NOON,), **options: Any) -> Measurement:
    """Return a measurement of one slot for each time."""
    kind = np.dtype(dtype)
    data = np.empty((len(times), *options.get("shape", ())), kind)
    for k in range(len(times)):
        data[k] = values[k] if isinstance(values, list) else values
    return Measurement(kind, data, times, **options)


def dates(dtype: str, *numbers: int) -> Measurement:
    """Return dates or durations, one for each slot."""
    return slots(dtype, list(np.array(numbers, "i8").view(dtype)), tuple(NOON + k for k in range(len(numbers))))


TIMES_OF_SLOTS = [
    slots("f8", [1.0, 2.0, 3.0], (0, 10**8, 2 * 10**8)),
    slots("f8", [1.0, 2.0, 3.0], (-(10**8), 0, 10**8)),
    slots("f8", [1.0, 2.0], (NOON, NOON - 3600 * 10**9)),
    slots("f8", [1.0, 2.0], (NOON, NOON + 500_000_000)),
]
DATES = [
    dates("M8[us]", 253_402_214_400_000_000),
    dates("M8[D]", 193_580),
    dates("m8[s]", 400 * 31_557_600),
    dates("M8[ps]", 1500, -(2**63)),
    dates("m8[M]", 5),
    dates("m8", 5),
    dates("M8[Y]", 1030),
    dates("M8[10ms]", 3),
]
NAMES = [
    slots([("pos", "f8", 3), ("pos_0", "f8")], ([1, 2, 3], 4)),
    slots([("p", [("x", "f8")]), ("p.x", "f8")], ((1,), 2)),
    slots([("x", "f8", 3)], ([1, 2, 3],), shape=(2,), dims=("x_0",)),
    slots([("a.b", "f8")], (1,), units={"a.b": "V"}),
    slots([("time", "f8"), ("seq", "i4"), ("nbytes", "i4"), ("gap_x", "i4")], (1, 2, 3, 4)),
    slots([("slot", "f8"), ("gap", "i4")], [[(1, 2)] * 2], shape=(2,), dims=("time",), rate=1000.0),
    slots([("a/b", "f8"), ("a_b", "i4"), ("..", "i4"), ("zarr.json", "i4")], (1, 2, 3, 4)),
    slots(
        "f8", 1.0, notes={"coordinates": "v", "labhub_schema": "s", "channel": 1, "Conventions": "C", "lossless": []}
    ),
]
WORDS = (
    "counts since reset",
    "seconds since trigger",
    "m since 2020-01-01",
    "days since 2020-01-01",
    "seconds",
    "$",
    "[mm]",
)
UNITS = [slots("f8", 1.0, units={"value": word}) for word in WORDS]
VALUES = [
    slots("S4", b"ab"),
    slots("S4", b"a\0b"),
    slots("V3", b"a\0\0"),
    slots("f8", [np.nan, np.inf, -0.0], (NOON, NOON, NOON)),
    slots("c16", complex(1, np.nan)),
    slots([("image", "u2", (2, 3)), ("exposure", "f8")], (np.arange(6).reshape(2, 3), 0.5)),
    slots([("r", [("a", ">i2", 2), ("b", "U3")], 2)], ([([1, 2], "x"), ([3, 4], "yz")],)),
]


def with_examples(found: list[Measurement]) -> Any:
    """Try measurements that were known to go wrong, before the random ones."""

    def decorate(test: Any) -> Any:
        for m in reversed(found):
            test = example(m=m)(test)
        return test

    return decorate


@examples(80)
@with_examples([*TIMES_OF_SLOTS, *DATES, *NAMES, *UNITS, *VALUES])
@given(m=measurements())
def test_what_was_measured_arrives(hub: Hub, m: Measurement) -> None:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        travel(hub, m, folder)
    finally:
        shutil.rmtree(folder)
