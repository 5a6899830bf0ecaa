"""What reaches the ring is the value that was written, a rounded float at most; everything else is refused."""

from __future__ import annotations

import array
import ctypes
import datetime
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labhub import DataBlockConfig, DataBlockPolicy, Schema, create_datablock_producer
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import InvalidArgument, SchemaMismatch

RECORD = [("p", "f4"), ("n", "i2"), ("v", "f8", (2,))]
NESTED = [("a", [("b", "f4"), ("c", "i2")]), ("d", [("e", "f8")], (2,))]
ROWS = [(1.5, 7, (1.0, 2.0)), (2.5, 8, (3.0, 4.0))]
MANY = np.array(ROWS, RECORD)
masked_array = np.ma.array
moment = np.datetime64


def schema_of(dtype: Any, shape: tuple[int, ...] = ()) -> Schema:
    return Schema.infer(dtype=dtype, shape=shape)


def written(schema: Schema, value: object) -> Any:
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        p.write(value)
        return next(c.batches(timeout=1)).data[0]


def written_many(schema: Schema, values: object) -> Any:
    with open_producer("x", schema) as p, open_consumer("x", schema) as c:
        n = p.write_many(values)
        return next(c.batches(min_slots=n, timeout=1)).data


def rows_of(records: Any) -> list[tuple[Any, ...]]:
    return [(float(r["p"]), int(r["n"]), r["v"].tolist()) for r in np.atleast_1d(records)]


def refused(schema: Schema, value: object, message: str, how: str = "write") -> None:
    with open_producer("x", schema) as p:
        with pytest.raises(SchemaMismatch, match=message):
            getattr(p, how)(value)
        assert p.next_seq == 0


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


# --------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize("value", [b"stim/left", np.bytes_(b"stim"), bytearray(b"ab"), memoryview(b"ab"), b"", b"a\0b"])
def test_short_text_as_bytes(value: Any) -> None:
    assert written(schema_of("S32"), value) == bytes(value)
    assert written(schema_of([("k", "S32"), ("x", "f8")]), (value, 1))["k"] == bytes(value)
    assert written(schema_of("S32", (2,)), [value, b"other"]).tolist() == [bytes(value), b"other"]
    assert written_many(schema_of("S32"), [value, b"other"]).tolist() == [bytes(value), b"other"]


@pytest.mark.parametrize("value", ["", "stim", "äöü€", "\U0001f600", np.str_("ab"), np.array("ab", "U30")])
def test_short_text(value: Any) -> None:
    assert written(schema_of("U8"), value) == str(value)
    assert written(schema_of([("k", "U8"), ("x", "f8")]), {"k": value, "x": 1})["k"] == str(value)
    assert written_many(schema_of("U8"), [value, "other"]).tolist() == [str(value), "other"]


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("S4", b"abcde", "cannot hold the value b'abcde'.*S5"),
        ("S4", np.bytes_(b"abcde"), "S5"),
        ("S4", np.array(b"abcde"), "cannot hold the value b'abcde'"),
        ("S4", "ab", r"encode it: value\.encode\(\)"),
        ("S4", b"ab\0", "ends with NUL"),
        ("S4", 7, "int64 does not convert"),
        ("U4", "abcde", "cannot hold the value 'abcde'"),
        ("U4", np.array("abcde"), "cannot hold the value 'abcde'"),
        ("U4", np.array(b"ab"), r"decode it: value\.decode\(\)"),
        ("U4", "ab\0", "ends with NUL"),
        ("U4", 7, "int64 does not convert"),
        ("U4", True, "bool does not convert"),
        ("U4", None, "cannot hold the value None"),
    ],
)
def test_text_that_does_not_fit(dtype: str, value: Any, message: str) -> None:
    refused(schema_of(dtype), value, message)
    refused(schema_of([("k", dtype)]), {"k": value}, "field 'k'.*" + message)
    refused(schema_of(dtype), [value], message, "write_many")
    refused(schema_of(dtype, (2,)), [value, value], message)


def test_a_list_of_texts_makes_no_text_of_numbers() -> None:
    refused(schema_of("U8", (2,)), ["a", 1], "int64 does not convert")
    refused(schema_of("U8", (2,)), ["a", b"b"], "decode")
    refused(schema_of("f8", (2,)), [1, "2"], "does not convert")


def test_a_whole_field_of_text_is_taken_with_its_padding() -> None:
    assert written(schema_of("S4"), np.array(b"ab", "S4").tobytes()) == b"ab"
    assert written(schema_of([("k", "S4")]), {"k": b"ab\0\0"})["k"] == b"ab"
    assert written(schema_of("S2", (2,)), b"a\0bc").tolist() == [b"a", b"bc"]
    refused(schema_of("S2", (2,)), b"abc", "4 bytes")


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 2 has it")
def test_text_of_any_length_in_an_array() -> None:
    texts = np.array(["ab", "abcde"], np.dtypes.StringDType())
    assert written_many(schema_of("U5"), texts).tolist() == ["ab", "abcde"]
    refused(schema_of("U4"), texts, r"cannot hold the value 'abcde' at \(1,\)", "write_many")


# --------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("M8[ns]", moment("3000-01-01", "s")),
        ("M8[ns]", moment("2500-01-01", "D")),
        (">M8[ns]", moment("3000", "Y")),
        ("M8[ns]", moment(10**15, "Y")),
        ("M8[s]", moment("2026-01-01T00:00:00.5", "ns")),
        ("M8[D]", moment("2026-01-01T01", "h")),
        ("M8[Y]", moment("2026-02", "M")),
        ("M8[10ms]", moment(15, "ms")),
        ("M8", moment("2026", "s")),
        ("m8[ns]", np.timedelta64(400 * 365, "D")),
        ("m8[ns]", np.timedelta64(400, "Y")),
        ("m8[s]", np.timedelta64(1500, "ms")),
        ("m8[D]", np.timedelta64(5, "M")),
        ("m8[M]", np.timedelta64(5, "D")),
        ("m8[s]", np.timedelta64(5)),
        ("m8", np.timedelta64(5, "s")),
        ("m8[s]", np.uint64(2**63)),
        ("m8[s]", -(2**63)),
    ],
)
def test_a_time_outside_of_the_dtype_or_finer_than_its_unit(dtype: str, value: Any) -> None:
    refused(schema_of(dtype), value, "cannot hold the value")
    refused(schema_of(dtype, (2,)), np.array([0, value]).astype(np.asarray(value).dtype), r"at \([01],\)")
    refused(schema_of(dtype), [value], "cannot hold the value", "write_many")
    refused(schema_of([("t", dtype), ("x", "f8")]), (value, 1), "field 't'")


@pytest.mark.parametrize("unit", ["ns", "us", "s", "D", "Y"])
@pytest.mark.parametrize("nothing", [moment("NaT"), moment("NaT", "s"), moment("NaT", "ns")])
def test_no_time_stays_no_time(unit: str, nothing: Any) -> None:
    assert np.isnat(written(schema_of(f"M8[{unit}]"), nothing))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("M8[ns]", moment("2026-01-01", "s")),
        ("M8[ns]", moment("1677-09-23", "D")),
        ("M8[us]", moment("9999-12-31", "D")),
        ("M8[s]", moment("2026-01-01T00:00:01.000000000", "ns")),
        ("M8[Y]", moment("2026-01", "M")),
        ("m8[ns]", np.timedelta64(2, "s")),
        ("m8[M]", np.timedelta64(5, "Y")),
        ("m8[s]", 5),
    ],
)
def test_a_time_that_the_dtype_has(dtype: str, value: Any) -> None:
    assert written(schema_of(dtype), value) == value
    assert written_many(schema_of(dtype), [value])[0] == value
    assert written_many(schema_of(dtype), np.array([value]))[0] == value


def test_times_of_several_units_in_one_list() -> None:
    far, zero = moment("3000-01-01", "s"), moment(0, "ns")
    assert written(schema_of("M8[s]", (2,)), [far, zero]).tolist() == [far.item(), zero.astype("M8[s]").item()]
    refused(schema_of("M8[ns]", (2,)), [far, zero], "3000-01-01")


@pytest.mark.parametrize("dtype", ["i8", "f8", "m8[s]"])
def test_a_time_is_no_number(dtype: str) -> None:
    refused(schema_of(dtype), moment("2026", "s"), "does not convert")
    if dtype != "m8[s]":
        refused(schema_of(dtype), np.timedelta64(5, "s"), "does not convert")


# --------------------------------------------------------------------------------------------------- records


def other_layouts() -> list[np.ndarray]:
    scattered = np.zeros(2, {"names": ["n", "v", "p"], "formats": ["i2", ("f8", 2), ">f4"], "offsets": [40, 8, 0]})
    turned = np.zeros(2, [("v", ">f8", 2), ("n", ">i2"), ("p", "f4")])
    for name in MANY.dtype.names or ():
        scattered[name] = turned[name] = MANY[name]
    aligned = np.array(ROWS, np.dtype(RECORD, align=True))
    wider = np.zeros(2, [*RECORD, ("w", "f8")])
    for name in MANY.dtype.names or ():
        wider[name] = MANY[name]
    return [aligned, scattered, turned, MANY.view(np.recarray), MANY.repeat(2)[::2], wider[["v", "n", "p"]]]


@pytest.mark.parametrize("records", other_layouts(), ids=["aligned", "scattered", "order", "rec", "steps", "picked"])
def test_records_are_matched_by_the_names_of_their_fields(records: np.ndarray) -> None:
    for schema in (schema_of(RECORD), schema_of(np.dtype(RECORD, align=True))):
        assert rows_of(written_many(schema, records)) == rows_of(MANY)
        assert rows_of(written_many(schema, list(records))) == rows_of(MANY)
        assert rows_of(written(schema, records[0])) == rows_of(MANY[0])
    assert rows_of(written(schema_of(RECORD, (2,)), records)) == rows_of(MANY)


def test_fields_inside_of_fields() -> None:
    records = np.zeros(2, [("d", [("e", ">f8")], (2,)), ("a", [("c", "i2"), ("b", "f4")])])
    records["a"]["b"], records["a"]["c"], records["d"]["e"] = [1, 2], [3, 4], [[5, 6], [7, 8]]
    data = written_many(schema_of(NESTED), records)
    assert data["a"].tolist() == [(1, 3), (2, 4)]
    assert data["d"]["e"].tolist() == [[5, 6], [7, 8]]
    one = written(schema_of(NESTED), {"a": records["a"][0], "d": records["d"][0]})
    assert one["a"].item() == (1, 3)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (np.zeros(2, [("p", "f8"), ("n", "i2"), ("v", "f8", 2)]), "field 'p': float32 here, float64 there"),
        (np.zeros(2, [("p", "f4"), ("n", "i2")]), "field 'v': .* here, missing there"),
        (np.zeros(2, [*RECORD, ("w", "f8")]), "field 'w': missing here"),
        (np.zeros(2, [("p", "f4"), ("n", "i2"), ("v", "f8", 3)]), "field 'v'"),
        (np.zeros(2), "field 'p'"),
        (np.zeros(0, [("p", "f4")]), "field 'n'"),
    ],
)
def test_records_with_other_fields(records: np.ndarray, message: str) -> None:
    refused(schema_of(RECORD), records, message, "write_many")


# --------------------------------------------------------------------------------------------------- tables

FRAME = pd.DataFrame({"b": [1.5, 2.5], "a": [1, 2]})
PAIRS = schema_of([("a", "i8"), ("b", "f4")])


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        FRAME.astype({"b": "f4"}).to_records(index=False),
        FRAME.convert_dtypes(),
        FRAME.astype({"a": "int64[pyarrow]"}),
        FRAME.astype(object),
        {"a": [1, 2], "b": [1.5, 2.5]},
        xr.Dataset({"a": ("t", [1, 2]), "b": ("t", [1.5, 2.5])}),
    ],
    ids=["frame", "records", "nullable", "arrow", "objects", "dict", "dataset"],
)
def test_tables_are_written_by_column(table: Any) -> None:
    assert written_many(PAIRS, table).tolist() == [(1, 1.5), (2, 2.5)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FRAME.assign(c=1), "field 'c': not in the schema"),
        (FRAME[["a"]], "field 'b': missing"),
        (FRAME.assign(a=[1.5, 2]), "field 'a' is int64"),
        (FRAME.assign(a=pd.array([1, None], "Int64")), "field 'a'"),
        (FRAME.assign(a=["x", None]), "field 'a'"),
        (FRAME.assign(b=[1, 1e300]), r"field 'b' is float32.* at \(1,\).*inf"),
        ({"a": [1, 2], "b": [1.0]}, "different lengths"),
        ({"a": 1, "b": 1.0}, "single value"),
    ],
)
def test_tables_that_do_not_fit(table: Any, message: str) -> None:
    refused(PAIRS, table, message, "write_many")


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2]),
        pd.Series([1, 2], dtype="Int64"),
        pd.Series([1.0, 2.0], dtype="Sparse[float]"),
        xr.DataArray([1, 2]),
        np.array([1, 2], ">i2"),
        np.array([1, 2], object),
        range(1, 3),
        deque([1, 2]),
        (1, 2),
    ],
    ids=lambda v: type(v).__name__,
)
def test_many_values_in_whatever_holds_them(values: Any) -> None:
    assert written_many(schema_of("f4"), values).tolist() == [1, 2]


@pytest.mark.parametrize("values", [7, "text", b"bytes", {1, 2}, (x for x in (1, 2)), None, object()])
def test_what_is_not_many(values: Any) -> None:
    with open_producer("x", schema_of("f8")) as p, pytest.raises(InvalidArgument, match="an array or a list"):
        p.write_many(values)


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
