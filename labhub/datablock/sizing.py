"""How many slots a ring has: as many as the caller says, as many as a time needs, or a default."""

from __future__ import annotations

import logging
import math
from typing import Any

from labhub import _native
from labhub.datablock.config import checked_count
from labhub.datablock.location import default_capacity, free_nbytes
from labhub.errors import InvalidArgument, LabHubError
from labhub.logs import event
from labhub.schema import TIME, Schema
from labhub.words import size

logger = logging.getLogger(__name__)

DEFAULT_HISTORY = 2.0
"""How far back a ring reaches at least, if its rate is known and nobody asks for more (in seconds)."""
SHARE = 4
"""A ring that nobody has sized takes at most this fraction, one in so many, of what is free in shared memory."""
SPARE_SLOTS = 3
"""Slots beyond those of the time itself: the newest one, one that is overwritten now, and one that is older than the
time, which proves that nothing is missing."""
HEADER_NBYTES = 16 * 1024
"""What a segment takes besides its slots, rounded up (in bytes)."""


def rate_of(schema: Schema | None, rate: float | None = None) -> float | None:
    """Return how many slots come per second: what the caller says, or what the sample rate does; None if neither.

    Raises
    ------
    InvalidArgument
        If `rate` is not a positive number, or the schema has a sample rate that says the same or something else.
    """
    known = None
    if schema is not None and schema.sample_rate is not None and TIME in schema.dims:
        known = schema.sample_rate / max(1, schema.shape[schema.dims.index(TIME)])
    if rate is None:
        return known
    given = _positive("rate", rate, "slots per second")
    if known is not None:
        raise InvalidArgument(
            f"rate={rate!r} is one too many: sample_rate={schema.sample_rate:g} already says that {known:g} slots come "  # type: ignore[union-attr]
            "per second; leave out rate"
        )
    return given


def check_size(
    capacity: int | None, history: float | None, rate: float | None, schema: Schema | None, sample_rate: float | None
) -> None:
    """Refuse a size that makes no sense, also while the schema is still left to the first write.

    Raises
    ------
    InvalidArgument
        If both `capacity` and `history` are given, `history` without a rate, or one of them is no number above 0.
    """
    known = rate_of(schema, rate)
    if history is None:
        return
    _positive("history", history, "seconds")
    if capacity is not None:
        raise InvalidArgument(
            f"capacity={capacity!r} and history={history!r} both say how long the ring is; give one of them"
        )
    if known is None and (schema is not None or sample_rate is None):
        raise InvalidArgument(
            f"history={history!r} is a time, and it is not known how many slots come per second; give rate= as well "
            "(in slots per second), or capacity= (in slots) instead"
        )


def slots_for(history: float, rate: float) -> int:
    """Return how many slots a ring needs to reach back so far (in seconds), also while one of them is written."""
    return math.ceil(round(history * rate, 6)) + SPARE_SLOTS


def history_of(capacity: int | None, rate: float | None) -> float | None:
    """Return how far back a ring reaches at any moment (in seconds); None if that is not known."""
    if capacity is None or rate is None:
        return None
    return max(0, capacity - SPARE_SLOTS) / rate


def choose_capacity(
    name: str, schema: Schema, directory: str, capacity: int | None, history: float | None, rate: float | None
) -> int:
    """Return how many slots the ring of a channel gets.

    Raises
    ------
    InvalidArgument
        See `check_size`.
    """
    check_size(capacity, history, rate, schema, schema.sample_rate)
    if capacity is not None:
        return checked_count("capacity", capacity)
    per_second = rate_of(schema, rate)
    if per_second is None:
        return default_capacity(schema.slot_nbytes, directory)
    if history is not None:
        return slots_for(history, per_second)
    left = _left_behind(name, schema, directory)
    return _default_for(name, schema, directory, per_second) if left is None else left


def _default_for(name: str, schema: Schema, directory: str, rate: float) -> int:
    """Return the default of a channel whose rate is known."""
    wanted = max(slots_for(DEFAULT_HISTORY, rate), default_capacity(schema.slot_nbytes, directory))
    free = free_nbytes(directory)
    chosen = min(wanted, max(2, (free // SHARE - HEADER_NBYTES) // (schema.slot_nbytes + 64)))
    reach = history_of(chosen, rate)
    assert reach is not None
    facts = event("ring_sized", channel=name, capacity=chosen, history=reach, rate=rate)
    if reach < DEFAULT_HISTORY and chosen < wanted:
        logger.warning(
            "channel %r: its ring has %d slots and reaches back %.3g s instead of %g s, as %s are free in shared "
            "memory; give it capacity= or history=, or set LABHUB_SHM_DIR to a larger file system",
            name, chosen, reach, DEFAULT_HISTORY, size(free), extra=facts,
        )  # fmt: skip
    else:
        logger.info("channel %r: its ring has %d slots and reaches back %.4g s", name, chosen, reach, extra=facts)
    return chosen


def _left_behind(name: str, schema: Schema, directory: str) -> int | None:
    """Return the capacity of a segment that a producer of this schema left behind: it is taken over as it is."""
    try:
        found: dict[str, Any] = _native.probe(directory, name)
    except (LabHubError, OSError):
        return None
    same = found["schema_hash"] == schema.layout_hash and found["slot_nbytes"] == schema.slot_nbytes
    return int(found["capacity"]) if same else None


def _positive(name: str, value: object, unit: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InvalidArgument(f"{name} is a positive number of {unit}, not {value!r}")
    return number
