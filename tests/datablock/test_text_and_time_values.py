"""Text and times reach the ring as they are, or are refused: never cut, never wrapped around."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.datablock.ways_in import refused, schema_of, written, written_many

moment = np.datetime64


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
