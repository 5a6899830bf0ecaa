"""What the tests of values on their way in share: write, and read back; or be refused, and leave nothing."""

from __future__ import annotations

from typing import Any

import pytest

from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer
from labhub.errors import SchemaMismatch


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


def refused(schema: Schema, value: object, message: str, how: str = "write") -> None:
    with open_producer("x", schema) as p:
        with pytest.raises(SchemaMismatch, match=message):
            getattr(p, how)(value)
        assert p.next_seq == 0
