"""The packer and the long way agree on every record that the packer takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labhub import Schema
from labhub.datablock.encode import as_bytes, as_slot
from labhub.datablock.packing import packer_of
from labhub.errors import LabHubError

SCALARS = [Schema.infer(dtype=code) for code in ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")]
FIELDS = Schema.infer(dtype=[("t", "f8"), ("on", "?"), ("n", "i4"), ("k", "u2"), ("x", "f4")])
PADDED = Schema.infer(dtype=np.dtype([("n", "u1"), ("t", "f8")], align=True))
numbers = st.one_of(
    st.floats(width=64),
    st.floats(width=64).map(np.float64),
    st.floats(width=32).map(np.float32),
    st.integers(-(2**70), 2**70),
    st.integers(-(2**31), 2**31 - 1).map(np.int32),
    st.booleans(),
)


def long_way(record: object, schema: Schema) -> bytes | None:
    try:
        return as_bytes(as_slot(record, schema)).tobytes()
    except LabHubError:
        return None


def agree(record: object, schema: Schema) -> None:
    packed = packer_of(schema)(record)
    if packed is not None:
        assert packed == long_way(record, schema)


@given(st.sampled_from(SCALARS), numbers)
@example(Schema.infer(dtype="f8"), 2**53 + 1)
@example(Schema.infer(dtype="f8"), -(2**63) - 1)
@example(Schema.infer(dtype="f8"), 10**400)
@example(Schema.infer(dtype="f4"), 1e39)
@example(Schema.infer(dtype="i4"), np.int64(2**31))
def test_scalars(schema, value) -> None:
    agree(value, schema)


@given(st.sampled_from([FIELDS, PADDED]), st.data())
def test_records(schema, data) -> None:
    values = tuple(data.draw(numbers) for _ in schema.fields)
    agree(values, schema)
    agree(dict(zip(schema.fields, values, strict=True)), schema)


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        (FIELDS, (0.1, True, -3, 4, 0.5)),
        (FIELDS, {"x": 0.5, "k": 4, "n": -3, "on": True, "t": 0.1}),
        (PADDED, (7, np.float64(1.5))),
        (Schema.infer(dtype="f8"), 1.5),
        (Schema.infer(dtype="i8"), -1),
    ],
)
def test_what_is_packed(schema, record) -> None:
    packed = packer_of(schema)(record)
    assert packed is not None
    assert packed == long_way(record, schema)


@pytest.mark.parametrize(
    ("schema", "record"),
    [
        (FIELDS, (0.1, True, -3, 4)),
        (FIELDS, {"t": 0.1, "on": True, "n": -3, "k": 4, "other": 0.5}),
        (FIELDS, (0.1, 1, -3, 4, 0.5)),  # an integer is no flag
        (FIELDS, (0.1, True, 2**31, 4, 0.5)),
        (FIELDS, None),
        (FIELDS, 1.5),
        (Schema.infer(dtype="i8"), 1.5),
        (Schema.infer(dtype="i8"), True),
        (Schema.infer(dtype=">f8"), 1.5),
        (Schema.infer(dtype="c16"), 1.5),
        (Schema.infer(dtype="f8", shape=2), 1.5),
        (Schema.infer(dtype=[("a", "f8", 2)]), (1.5,)),
        (Schema.infer(dtype=[("a", [("b", "f8")])]), (1.5,)),
        (Schema.infer(dtype={"names": ["a", "b"], "formats": ["f8", "f8"], "offsets": [8, 0]}), (1.5, 2.5)),
    ],
)
def test_what_is_left_to_the_long_way(schema, record) -> None:
    assert packer_of(schema)(record) is None
