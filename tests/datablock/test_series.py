"""Which lines of a channel can be drawn, found by their names, however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from labhub.datablock.series import MAX_SERIES, choose, samples
from labhub.errors import InvalidArgument
from labhub.schema import Schema
from tests.datablock.batches import batch_of

CAMERA = Schema(np.dtype([("image", "u2", (480, 640)), ("exposure", "f8"), ("tag", "S4")]))
FRAME = Schema(np.dtype("u2"), (480, 640), ("y", "x"))
WIDE = Schema(np.dtype("f4"), (1, 4096), ("time", "ch"), sample_rate=10)


@pytest.mark.parametrize(
    ("schema", "name", "value"),
    [
        (CAMERA, "exposure", lambda data: data["exposure"]),
        (CAMERA, "image 479 image 639", lambda data: data["image"][:, 479, 639]),
        (FRAME, "y 240 x 320", lambda data: data[:, 240, 320]),
        (WIDE, "ch 3000", lambda data: data[:, 0, 3000]),
        (
            Schema(np.dtype([("a", [("x", "i2", 100), ("n", "i2")], 200)])),
            "a.x x 150 x 99",
            lambda data: data["a"]["x"][:, 150, 99],
        ),
        (
            Schema(np.dtype([("a (b) 1", "i2", 5000), ("a", "i2")])),
            "a (b) 1 4999",
            lambda data: data["a (b) 1"][:, 4999],
        ),
    ],
)
def test_a_line_is_found_behind_and_within_a_large_field(schema: Schema, name: str, value) -> None:
    batch = batch_of(schema)
    (series,) = choose("x", schema, [name])
    assert series.label == name
    assert samples(batch, [series])[1][:, 0].tolist() == value(batch.data).tolist()


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (FRAME, "y 480 x 0"),
        (FRAME, "y 0240 x 1"),
        (FRAME, "y ٣ x 1"),
        (FRAME, "y 1"),
        (WIDE, "ch 4096"),
        (WIDE, "ch -1"),
        (CAMERA, "image 1"),
        (CAMERA, "exposure 0"),
    ],
)
def test_a_line_that_is_not_there_is_said_not_to_be(schema: Schema, name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"is not there; what can be drawn: .* to "):
        choose("x", schema, [name])


def test_a_large_field_does_not_hide_the_others() -> None:
    with pytest.raises(InvalidArgument, match="drawn: image 0 image 0 to image 479 image 639, exposure"):
        choose("x", CAMERA, ["exposur"])
    with pytest.raises(InvalidArgument, match=r"drawn: f0, .*, f7 \.\.\.$"):
        choose("x", Schema(np.dtype([(f"f{k}", "f4") for k in range(40)])), ["g"])
    with pytest.raises(InvalidArgument, match="has a name, which is text, not 5"):
        choose("x", FRAME, [5])  # type: ignore[list-item]


def test_too_many_lines_are_counted_and_not_listed() -> None:
    with pytest.raises(InvalidArgument, match=rf"would give 307200 lines, of which a plot shows at most {MAX_SERIES}"):
        choose("x", FRAME, [])
    with pytest.raises(InvalidArgument, match="would give 307201 lines"):
        choose("x", CAMERA, ["image", "exposure"])
    vast = Schema(np.dtype([("a", "u1", 2**30), ("b", "f4")]))
    assert [s.label for s in choose("x", vast, ["b", "a 1073741823", "b"])] == ["b", "a 1073741823"]


def test_a_field_that_is_no_number_is_said_to_be_none() -> None:
    with pytest.raises(InvalidArgument, match="field 'tag' of 'x' is not numeric"):
        choose("x", CAMERA, ["tag"])
    with pytest.raises(InvalidArgument, match="has no numeric field: value"):
        choose("x", Schema(np.dtype("S4")), [])


def test_a_nested_field_has_its_own_unit() -> None:
    schema = Schema(np.dtype([("p", [("x", "f4"), ("y", "f4")])]), units={"p": "mm", "p.y": "V"})
    assert [(s.label, s.unit) for s in choose("x", schema, ["p"])] == [("p.x", "mm"), ("p.y", "V")]
