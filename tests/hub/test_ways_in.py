"""The value and the time of what is written through the hub, the first write included, which decides the schema."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labhub import Hub
from labhub.errors import InvalidArgument, SchemaMismatch

masked_array = np.ma.array


@pytest.mark.parametrize("checksum", ["none", "manual", "enforced"])
def test_1970_is_a_time(hub: Hub, checksum: Any) -> None:
    with hub.producer("x", dtype="f8", checksum=checksum) as p, hub.consumer("x", start="oldest") as c:
        for time_ns in (-100_000_000, 0, 100_000_000):
            with p.slot() as s:
                s.array[...] = 1
                s.timestamp_ns = time_ns
        with pytest.raises(InvalidArgument, match="timestamp_ns"), p.slot() as s:
            s.timestamp_ns = 0.1  # type: ignore[assignment]
        ds = next(c.datasets(min_slots=3, timeout=5))
        assert ds.time.values.astype("i8").tolist() == [-100_000_000, 0, 100_000_000]


@pytest.mark.parametrize("checksum", ["none", "enforced"])
def test_blocks_of_one_call_are_evenly_spaced_although_a_reader_pauses(hub: Hub, checksum: Any) -> None:
    blocks = {"dtype": "f4", "shape": 10, "dims": "time", "sample_rate": 1000}
    with (
        hub.producer("x", **blocks, capacity=16, evict_after=None, checksum=checksum) as p,  # type: ignore[arg-type]
        hub.consumer("x", mode="lossless") as c,
    ):
        writer = threading.Thread(target=p.write_many, args=[np.zeros((64, 10), "f4")])
        writer.start()
        deadline = time.monotonic() + 20
        while not p.stats()["blocked"] and time.monotonic() < deadline:
            pass
        threading.Event().wait(0.1)  # the pause, which would show in the times
        times: list[int] = []
        while len(times) < 64:
            times += next(c.batches(max_slots=4, timeout=5)).timestamp_ns.tolist()
        writer.join(60)
    assert np.diff(times).tolist() == [10_000_000] * 63


@pytest.mark.parametrize(
    ("record", "dtype", "shape"),
    [
        (memoryview(np.arange(4, dtype="i4"))[::2], "i4", (2,)),
        (b"stim", "S4", ()),
        ("stim", "<U4", ()),
        (np.float16(1), "f2", ()),
        (np.datetime64("3000", "s"), "M8[s]", ()),
        (masked_array([1.0, 2.0], mask=False), "f8", (2,)),
    ],
)
def test_the_first_write_decides_by_the_values_own_dtype(hub: Hub, record: Any, dtype: str, shape: Any) -> None:
    with hub.producer("x") as p:
        p.write(record)
        assert p.schema is not None
        assert (p.schema.dtype, p.schema.shape) == (np.dtype(dtype), shape)
        value = hub["x"].snapshot().data[0]
        assert np.array_equal(value, np.asarray(record))


@pytest.mark.parametrize(
    "record",
    [np.ma.masked, masked_array([1, 2], mask=[0, 1]), [1, np.ma.masked], {"a": np.ma.masked}, {"a": [1, np.ma.masked]}],
)
def test_a_first_write_with_a_mask_opens_nothing(hub: Hub, record: Any) -> None:
    with hub.producer("x") as p:
        with pytest.raises(SchemaMismatch, match="filled"):
            p.write(record)
        with pytest.raises(SchemaMismatch, match="filled"):
            p.write_many([record])
        assert p.schema is None


@pytest.mark.parametrize(
    ("records", "dtype", "shape"),
    [
        (memoryview(np.arange(6, dtype="i2").reshape(3, 2)), "i2", (2,)),
        (xr.DataArray(np.zeros((3, 2), "f4")), "f4", (2,)),
        (pd.Series([1, 2, 3], dtype="Int64"), "i8", ()),
        (np.array(["a", "abc", "b"]), "<U3", ()),
        (pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1, 2]}), [("a", "i8"), ("b", "f8")], ()),
        (
            np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
            np.dtype([("a", "i1"), ("b", "f8")], align=True),
            (),
        ),
        ([1.5, 2, 3], "f8", ()),
    ],
    ids=["memoryview", "DataArray", "Series", "text", "frame", "aligned", "list"],
)
def test_the_first_of_many_decides(hub: Hub, records: Any, dtype: Any, shape: Any) -> None:
    with hub.producer("x") as p:
        assert p.write_many(records) == 3
        assert p.schema is not None
        assert (p.schema.dtype, p.schema.shape) == (np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (masked_array([1.0, 2.0], mask=[0, 1]), SchemaMismatch),
        (7, InvalidArgument),
        (b"ab", InvalidArgument),
        ([], InvalidArgument),
        (np.zeros((0, 3)), InvalidArgument),
        (pd.DataFrame({"a": []}), InvalidArgument),
    ],
)
def test_what_says_no_schema(hub: Hub, records: Any, error: type[Exception]) -> None:
    with hub.producer("x") as p:
        with pytest.raises(error):
            p.write_many(records)
        assert p.schema is None
