from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labhub import Schema
from labhub.errors import InvalidArgument, SchemaMismatch

PRESSURE = np.dtype([("p", "f4"), ("t", "f8", (3,))])


@pytest.mark.parametrize(
    ("like", "dtype", "shape"),
    [
        (1.5, "f8", ()),
        (7, "i8", ()),
        (True, "?", ()),
        (np.zeros((4, 3), "u2"), "u2", (4, 3)),
        ([1.0, 2.0], "f8", (2,)),
        (np.zeros((), PRESSURE), PRESSURE, ()),
        ({"p": 1.5, "n": 3}, [("p", "f8"), ("n", "i8")], ()),
        ("abc", "<U3", ()),
    ],
)
def test_schemas_are_inferred_from_examples(like: object, dtype: object, shape: tuple[int, ...]) -> None:
    schema = Schema.infer(like)  # type: ignore[arg-type]
    assert (schema.dtype, schema.shape) == (np.dtype(dtype), shape)  # type: ignore[call-overload]


def test_subarray_dtypes_are_more_axes() -> None:
    assert Schema(np.dtype(("f4", (2, 3)))) == Schema(np.dtype("f4"), (2, 3))


@given(hnp.scalar_dtypes() | hnp.nested_dtypes(), st.lists(st.integers(1, 5), max_size=3))
def test_json_keeps_everything(dtype: np.dtype, shape: list[int]) -> None:
    try:
        schema = Schema(dtype, tuple(shape))
    except InvalidArgument:
        return  # no bytes, or objects
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.layout_hash == schema.layout_hash
    assert again.dtype == schema.dtype
    assert schema.difference(again) == ()


def test_units_and_notes_do_not_change_the_layout_hash() -> None:
    plain = Schema.infer(dtype="f4", shape=(4,))
    noted = Schema.infer(dtype="f4", shape=(4,), dims=["x"], units="bar", attrs={"gain": 2.0})
    assert plain.layout_hash == noted.layout_hash
    assert plain != noted


@pytest.mark.parametrize(
    ("other", "lines"),
    [
        (Schema.infer(dtype=[("p", "f4"), ("t", "f8", (3,)), ("n", "i4")]), ("field 'n': missing here",)),
        (Schema.infer(dtype=[("p", "f8"), ("t", "f8", (3,))]), ("field 'p': <f4 at byte 0 here, <f8 at byte 0 there",)),
        (Schema(PRESSURE, (2,)), ("shape: () here, (2,) there",)),
        (Schema.infer(dtype=[("p", ">f4"), ("t", "f8", (3,))]), ("field 'p': <f4 at byte 0 here, >f4",)),
    ],
)
def test_differences_are_told_field_by_field(other: Schema, lines: tuple[str, ...]) -> None:
    mine = Schema(PRESSURE)
    difference = mine.difference(other)
    assert all(any(line in found for found in difference) for line in lines), difference
    assert mine.layout_hash != other.layout_hash
    with pytest.raises(SchemaMismatch) as caught:
        mine.require(other, "channel 'x'")
    assert caught.value.difference == difference


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "O"}, "Python objects"),
        ({"dtype": [("a", "f4"), ("b", "O")]}, "field 'b' holds Python objects"),
        ({"dtype": "U"}, "give a length"),
        ({"dtype": "nonsense"}, "not a numpy dtype"),
        ({}, "like="),
        ({"like": object()}, "Python objects"),
        ({"dtype": "f4", "shape": (0,)}, "at least 1"),
        ({"dtype": "f4", "shape": (2, -1)}, "at least 1"),
        ({"dtype": "f4", "shape": (2,), "dims": ("a", "b")}, "each axis"),
        ({"dtype": "f4", "shape": (2, 2), "dims": ("a", "a")}, "each axis"),
        ({"dtype": "f4", "units": {"q": "bar"}}, "the fields are value"),
        ({"dtype": "f4", "units": {"value": 3}}, "must be text"),
        ({"dtype": "f4", "sample_rate": 100.0}, "'time' axis"),
        ({"dtype": "f4", "shape": (8,), "dims": "time"}, "needs a sample_rate"),
        ({"dtype": "f4", "shape": (8,), "dims": "time", "sample_rate": -1}, "positive"),
        ({"dtype": "f4", "shape": (8,), "dims": "time", "sample_rate": 1e-310}, "292 years"),
        ({"dtype": "f4", "shape": (8,), "dims": "time", "sample_rate": 1e-10}, "292 years"),
        ({"dtype": "f4", "shape": (8,), "dims": "time", "sample_rate": 10**400}, "positive"),
        ({"dtype": "f4", "attrs": {"a": object()}}, "plain JSON"),
        ({"dtype": "f4", "attrs": {"a": float("nan")}}, "plain JSON"),
    ],
)
def test_bad_input_is_named(options: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Schema.infer(**options)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"dtype":"O","shape":[]}', '{"dtype":"f4"}', '{"dtype":{},"shape":[]}'),
        *('{"dtype":"f8,(","shape":[]}', '{"dtype":"(2,","shape":[]}', '{"dtype":"f4","shape":[1e400]}'),
        '{"dtype":"f4","shape":[8],"dims":["time"],"sample_rate":1e-310}',
    ],
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Schema.from_json(text)


def test_the_repr_is_deterministic() -> None:
    schema = Schema.infer(dtype="f4", shape=(100, 2), dims=("time", "channel"), sample_rate=1000, units="mV")
    assert repr(schema) == (
        "Schema(float32, shape=(100, 2), dims=('time', 'channel'), units={'value': 'mV'}, sample_rate=1000)"
    )
    assert len({schema, Schema.from_json(schema.to_json())}) == 1
