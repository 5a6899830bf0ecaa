"""Make `before_tables.zarr`: a recording as labhub wrote it before names, units and dates had one description.

It was run once, at 0323d94; what it made is kept, so that newer versions go on reading it. `slots` says what it holds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from labhub.schema import Schema

STORE = Path(__file__).with_name("before_tables.zarr")

INNER = np.dtype([("x", "f8"), ("y", "i2", 2)])
LOG = np.dtype(
    [
        ("time", "f8"),
        ("seq", "u8"),
        ("nbytes", "i4"),
        ("a/b", "f4"),
        ("p", INNER),
        ("when", "M8[us]"),
        ("took", "m8[ms]"),
        ("day", "M8[D]"),
        ("name", "U4"),
        ("tag", "S4"),
        ("on", "?"),
        ("z", "c8"),
    ]
)

SCHEMAS = {
    "log": Schema(LOG, units={"time": "s", "p": "mm", "a/b": "bar"}, attrs={"site": "lab 3"}),
    "adc": Schema(np.dtype("i2"), (10, 3), ("time", "lead"), {"value": "mV"}, sample_rate=1000),
}


def slots(channel: str) -> np.ndarray[Any, Any]:
    """Return what the store holds of a channel."""
    if channel == "adc":
        return np.arange(90, dtype="i2").reshape(3, 10, 3)
    data = np.zeros(3, LOG)
    day = np.datetime64("2026-11-25")
    for k in range(3):
        data[k] = (
            *(k / 2, 10 + k, k, k / 4, (k / 8, (k, -k))),
            *(
                np.datetime64("2026-11-25T12:00:00.000001") + k,
                np.timedelta64(1500 + k, "ms"),
                day,
            ),
            *("µm", b"ab\0c", k == 1, 1j * k),
        )
    return data


def as_given(schema: Schema) -> dict[str, Any]:
    """Return a schema as arguments of `Hub.producer`."""
    names = "dtype", "shape", "dims", "units", "sample_rate", "attrs"
    return {name: getattr(schema, name) for name in names}


def main() -> None:
    """Record the channels into `STORE`."""
    from labhub.hub import connect, named_broker

    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub:
            producers = {name: hub.producer(name, **as_given(schema)) for name, schema in SCHEMAS.items()}
            with hub.record("*", store=STORE):
                for name, producer in producers.items():
                    producer.write_many(slots(name))
            for producer in producers.values():
                producer.close()


if __name__ == "__main__":
    sys.exit(main())
