"""Every dtype as an Arrow column: the value, or an error that names the field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labhub.errors import InvalidArgument
from labhub.schema import Schema
from tests.datablock.batches import batch_of, same

pytest.importorskip("pyarrow", reason="pip install 'labhub[arrow]'")

VALUES: dict[str, list[Any]] = {
    "?": [True, False],
    "i1": [-128, 127],
    "u8": [2**64 - 1, 0],
    ">u8": [2**64 - 1, 1],
    "i8": [-(2**63), 2**63 - 1],
    "f2": [1.5, np.nan, np.inf],
    ">f4": [1.5, np.nan],
    "f8": [5e-324, -np.inf, np.nan],
    "U4": ["a\0b", "µm", "", "x\0"],
    ">U4": ["µm", "", "Ā"],
    "S4": [b"a\0b", b"\xff", b"", b"x\0"],
    "V3": [b"\0\0\0", b"a\0\xff"],
}


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("dtype", VALUES)
def test_a_table_has_the_values(dtype: str, shape: tuple[int, ...], n: int) -> None:
    import pyarrow as pa

    schema = Schema(np.dtype(dtype), shape)
    data = np.resize(np.array(VALUES[dtype], dtype), (n, *shape))
    column = batch_of(schema, data, n).to_arrow()["value"].combine_chunks()
    for _ in shape:
        column = column.flatten()
    assert column.type != pa.null()
    assert same(np.array(column.to_pylist(), dtype).reshape(n, *shape), data)


@pytest.mark.parametrize("dtype", ["c8", "c16", "g", "G"])
def test_what_arrow_has_no_type_for_is_an_error_that_names_the_field(dtype: str) -> None:
    with pytest.raises(InvalidArgument, match=r"Arrow has no place for the field 'p.z'"):
        batch_of(Schema(np.dtype([("p", [("z", dtype)])]))).to_arrow()


def test_text_that_utf8_cannot_hold_is_an_error_that_names_the_field() -> None:
    with pytest.raises(InvalidArgument, match=r"Arrow has no place for the field 'name'"):
        batch_of(Schema(np.dtype([("name", "U2")])), [("\udcff",)]).to_arrow()


def test_a_table_has_the_schema_that_it_was_made_of() -> None:
    schema = Schema(
        np.dtype([("p", [("x", "f4", 2)])]), (4,), ("time",), {"p": "mm"}, sample_rate=10, attrs={"channel": "mine"}
    )
    table = batch_of(schema).to_arrow()
    assert Schema.from_json(table.schema.metadata[b"labhub_schema"].decode()) == schema
    assert table.schema.metadata[b"channel"] == b"x"
    assert table.schema.field("p.x").metadata == {b"units": b"mm", b"labhub_field": b"p.x"}
    assert table["p.x"].to_pylist()[0] == batch_of(schema).data["p"]["x"][0, 0].tolist()
