"""What reaches the ring is the value that was written, a rounded float at most; everything else is refused."""

from __future__ import annotations

import array
import ctypes
import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from labhub import DataBlockConfig, DataBlockPolicy, Schema, create_datablock_producer
from labhub.datablock.producer import open_producer
from labhub.errors import InvalidArgument, SchemaMismatch
from tests.datablock.ways_in import refused, schema_of, written, written_many

NESTED = [("a", [("b", "f4"), ("c", "i2")]), ("d", [("e", "f8")], (2,))]
masked_array = np.ma.array


# --------------------------------------------------------------------------------------------------- floats


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f2", "c8"])
@pytest.mark.parametrize(
    "value", [1e300, -1e300, np.float64(1e300), np.longdouble("1e400"), 10**400], ids=lambda v: type(v).__name__
)
def test_a_number_that_would_become_inf(dtype: str, value: Any) -> None:
    refused(schema_of(dtype), value, "field 'value' is .*cannot hold the value .*become inf")
    refused(schema_of(dtype, (2,)), [0.5, value], r"cannot hold the value")
    refused(schema_of(dtype), [0.5, value], "cannot hold the value", "write_many")
    refused(schema_of([("a", [("x", dtype, (2,))])]), {"a": {"x": [0.5, value]}}, r"field 'a\.x'")
    refused(schema_of([("x", dtype), ("n", "i2")]), (value, 1), "field 'x'")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("f2", np.array([65519, 65520])),
        ("f2", np.array([1, 2**64 - 1], "u8")),
        ("f2", np.array([1, 1e5], "f4")),
        ("f8", np.array([1, np.longdouble("1e400")])),
        ("c8", np.array([1, complex(np.inf, 1e300)])),
        ("c16", np.array([1, np.longdouble("1e400")]) * 1j),
        ("f4", np.array([1, 1e39], ">f8")),
    ],
)
def test_an_array_with_one_such_number(dtype: str, value: Any) -> None:
    refused(schema_of(dtype, (2,)), value, r"cannot hold the value .* at \(1,\)")
    refused(schema_of(dtype), value, r"cannot hold the value .* at \(1,\)", "write_many")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_inf_and_nan_stay_what_they_are(dtype: str) -> None:
    data = written(schema_of(dtype, (4,)), [np.inf, -np.inf, np.nan, 1.5])
    assert np.isposinf(data[0].real)
    assert np.isneginf(data[1].real)
    assert np.isnan(data[2])
    assert data[3] == 1.5
    assert np.isinf(written(schema_of([("x", dtype), ("n", "i2")]), (float("inf"), 1))["x"])


# --------------------------------------------------------------------------------------------------- whole numbers


@pytest.mark.parametrize(
    ("dtype", "value"), [("i4", 2**31), ("u1", -1), ("u8", -1), ("i8", 2**63), ("u8", 2**64), ("i8", 2**70)]
)
def test_an_integer_out_of_range(dtype: str, value: int) -> None:
    for how, slot, shape in (("write", value, ()), ("write", [0, value], (2,)), ("write_many", [0, value], ())):
        refused(schema_of(dtype, shape), slot, f"cannot hold the value {value}", how)


def test_lists_of_integers_that_need_all_64_bits() -> None:
    assert written(schema_of("u8", (2,)), [2**64 - 1, 1]).tolist() == [2**64 - 1, 1]
    assert written(schema_of("u8", (2,)), np.array([2**64 - 1, 1], object)).tolist() == [2**64 - 1, 1]
    refused(schema_of("i8", (2,)), [2**63, -1], "cannot hold the value 9223372036854775808")


@pytest.mark.parametrize(
    "value", [Decimal("1.5"), Fraction(1, 2), None, object(), "1.5", {}, {"a": 1}, datetime.timedelta(1), b"12"]
)
def test_objects_are_refused_by_name(value: Any) -> None:
    refused(schema_of("f8"), value, "field 'value' is float64|8 bytes")
    refused(schema_of([("x", "f8")]), {"x": value}, "field 'x' is float64")


def test_errors_show_no_addresses() -> None:
    with open_producer("x", schema_of("f8")) as p, pytest.raises(SchemaMismatch) as caught:
        p.write(object())
    assert "0x" not in str(caught.value)


# --------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    "value",
    [
        masked_array([1, 2, 3], mask=[0, 1, 0]),
        np.ma.masked_all(3),
        [1, np.ma.masked, 3],
        (1, 2, np.ma.masked),
        [masked_array(1, mask=True), 2, 3],
        np.array([1, 2, np.ma.masked], object),
    ],
)
def test_a_mask_is_never_lost(value: Any) -> None:
    refused(schema_of("f8", (3,)), value, "masked.*filled")
    refused(schema_of("f8", (3,)), [value], "masked.*filled", "write_many")
    refused(schema_of([("x", "f8", 3)]), {"x": value}, "field 'x'.*masked.*filled")
    refused(schema_of([("x", "f8", 3)]), (value,), "field 'x'.*masked.*filled")
    refused(schema_of("f8", (1, 3)), [value], "masked.*filled")


def test_masks_of_scalars_records_and_columns() -> None:
    pair = schema_of([("a", "f8"), ("b", "f8")])
    records = masked_array([(1, 2), (3, 4)], dtype=pair.dtype, mask=[(0, 1), (0, 0)])
    refused(schema_of("f8"), np.ma.masked, "filled")
    refused(schema_of("f8"), masked_array([1, 2], mask=[0, 1]), "1 of 2 elements masked", "write_many")
    refused(pair, records[0], "filled")
    refused(pair, records, "1 of 4 elements masked", "write_many")
    refused(pair, [records[0]], "filled", "write_many")
    refused(pair, {"a": [1, 2], "b": masked_array([1, 2], mask=[0, 1])}, "field 'b'.*filled", "write_many")
    refused(schema_of(NESTED), {"a": {"b": np.ma.masked, "c": 1}, "d": [(1,), (2,)]}, r"field 'a\.b'.*filled")


def test_what_has_a_mask_but_nothing_masked_is_an_array() -> None:
    assert written(schema_of("f8", (2,)), masked_array([1, 2], mask=False)).tolist() == [1, 2]
    assert written_many(schema_of("f8"), masked_array([1, 2])).tolist() == [1, 2]
    records = masked_array([(1, 2)], dtype=[("a", "f8"), ("b", "f8")])
    assert written_many(schema_of(records.dtype), records).tolist() == [(1, 2)]


# --------------------------------------------------------------------------------------------------- buffers

INTS = np.arange(4, dtype="i4")


@pytest.mark.parametrize(
    "value",
    [
        memoryview(INTS),
        memoryview(np.arange(0, 8, dtype="i4").repeat(2))[::4],
        memoryview(INTS.astype(">i4")),
        memoryview(INTS.astype("f8").tobytes()).cast("d"),
        array.array("f", [0, 1, 2, 3]),
        array.array("B", [0, 1, 2, 3]),
        (ctypes.c_double * 4)(0, 1, 2, 3),
        memoryview(INTS.astype("f2")),
    ],
)
def test_a_buffer_is_an_array_of_its_own_dtype(value: Any) -> None:
    wanted = np.asarray(value).tolist()
    assert written(schema_of("f4", (4,)), value).tolist() == wanted
    assert written(schema_of([("x", "f4", 4)]), {"x": value})["x"].tolist() == wanted
    assert written_many(schema_of("f4"), value).tolist() == wanted
    assert written_many(schema_of("f4", (4,)), [value, value]).tolist() == [wanted, wanted]


def test_a_buffer_whose_values_do_not_fit() -> None:
    refused(schema_of("i4", (2,)), memoryview(np.array([1.0, 2.0])), "float64 does not convert")
    refused(schema_of("f4"), memoryview(INTS), r"shape \(\)")
    refused(schema_of("f4", (2,)), memoryview(np.array([1.0, 1e300])), "become inf")


@pytest.mark.parametrize(
    "value", [bytearray(range(16)), memoryview(bytes(range(16))), memoryview(bytes(range(16))).cast("c")]
)
def test_plain_bytes_are_the_slot_as_it_lies_in_memory(value: Any) -> None:
    assert written(schema_of("u4", (4,)), value).tobytes() == bytes(range(16))


def test_bytes_with_steps_and_memory_that_was_released() -> None:
    assert written(schema_of("u2", (2,)), memoryview(bytes(range(8)))[::2]).tobytes() == bytes([0, 2, 4, 6])
    gone = memoryview(bytes(4))
    gone.release()
    for schema in (schema_of("f4"), Schema.raw(4)):
        with open_producer("x", schema) as p:
            with pytest.raises(InvalidArgument, match="memoryview"):
                p.write(gone)
            with pytest.raises(InvalidArgument, match="memoryview"):
                p.write_many(gone)


def test_bytes_in_a_field_of_bytes() -> None:
    record = written(schema_of([("raw", "u1", 4), ("v", "V2")]), (b"abcd", b"a\0"))
    assert (record["raw"].tolist(), record["v"].tobytes()) == ([97, 98, 99, 100], b"a\0")
    refused(schema_of([("v", "V4")]), {"v": b"abc"}, "field 'v'.*3 bytes")
    refused(schema_of("V8"), 1.5, "float64 does not convert")


# --------------------------------------------------------------------------------------------------- reference level


def test_a_write_handle_copies_memory_and_says_what_is_none() -> None:
    config = DataBlockConfig(ring_buffer_capacity=4, logical_unit_size=16)
    with create_datablock_producer("r", DataBlockPolicy.RING_BUFFER, config) as p:
        handle = p.acquire_write_slot(0)
        assert handle is not None
        handle.write(memoryview(bytes(range(8)))[::2])
        handle.write(np.arange(2, dtype="i2")[::-1], offset=4)
        handle.write(array.array("h", [5]), offset=8)
        assert p._raw(0)[:10].tobytes() == bytes([0, 2, 4, 6, 1, 0, 0, 0, 5, 0])
        with pytest.raises(SchemaMismatch, match="filled"):
            handle.write(masked_array([1, 2], mask=[0, 1]))
        gone = memoryview(b"ab")
        gone.release()
        for bad in ("text", 7, None, np.array([None]), gone, [1, 2]):
            with pytest.raises(InvalidArgument):
                handle.write(bad)  # type: ignore[arg-type]
        for offset in (True, 1.0, -1, None):
            with pytest.raises(InvalidArgument):
                handle.write(b"ab", offset)  # type: ignore[arg-type]
        for nbytes in (True, 1.0, -1, None, 17):
            with pytest.raises(InvalidArgument):
                handle.commit(nbytes)  # type: ignore[arg-type]
        handle.commit(10)
        handle.release()
