"""Batches without a ring, for what becomes of one afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np

from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.schema import Schema

BEGIN_NS = 1_764_500_000_000_000_000


def batch_of(schema: Schema, data: Any = None, n: int = 3) -> Batch:
    """Return a batch of these slots, or of `n` whose bytes are 0, 1, 2 and so on; one comes each millisecond."""
    if data is None:
        size = n * schema.slot_nbytes
        data = (np.arange(size) % 64).astype(np.uint8).view(schema.dtype).reshape(n, *schema.shape)
    data = np.asarray(data, schema.dtype)
    headers = np.zeros(len(data), SLOT_HEADER)
    headers["seq"] = np.arange(len(data))
    headers["timestamp_ns"] = BEGIN_NS + np.arange(len(data)) * 1_000_000
    headers["nbytes"] = schema.slot_nbytes
    headers["epoch"] = 1
    return Batch("x", schema, data, headers)


def same(one: Any, other: Any) -> bool:
    """Whether two arrays hold the same values; NaN and NaT are the same as themselves."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())
