"""What of a channel can be drawn as lines over time, and how to get it out of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import Batch
from labhub.errors import InvalidArgument
from labhub.schema import TIME, VALUE, Schema

MAX_SERIES = 32
"""Most lines of one channel: more cannot be told apart."""


@dataclass(frozen=True)
class Series:
    """One line: a field of a channel, or one column of a field with axes of its own.

    Attributes
    ----------
    label : str
        Its name within the channel, for example ``value``, ``ax`` or ``lead 1``.
    unit : str
        Empty where unknown.
    field : tuple of str
        Path of the field in a structured dtype; ``()`` for a plain one.
    column : int
        Its place along the flattened axes other than time.
    """

    label: str
    unit: str
    field: tuple[str, ...]
    column: int


def plottable(schema: Schema) -> tuple[list[Series], list[str]]:
    """Every line that slots of a schema can give, and the names of the fields that can give none."""
    dims = schema.dims or tuple(f"dim_{k}" for k in range(len(schema.shape)))
    axes = [(d, n) for d, n in zip(dims, schema.shape, strict=True) if d != TIME]
    found, others = [], []
    for path, dtype in _leaves(schema.dtype):
        name = ".".join(path) or VALUE
        if dtype.base.kind not in "biuf":
            others.append(name)
            continue
        unit = schema.units.get(path[0] if path else VALUE, "")
        # The axes of a field have no names of their own: they are called after the field, which then need not be told.
        inner = [*axes, *((path[-1] if path else VALUE, n) for n in dtype.shape)]
        only = not path or schema.dtype.names == (name,) or (not axes and len(path) == 1)
        for column in range(math.prod(n for _, n in inner)):
            found.append(Series(_label(name, inner, column, only), unit, path, column))
            if len(found) > 64 * MAX_SERIES:  # an image, say: nobody wants to read that many names
                return found, others
    return found, others


def choose(channel: str, schema: Schema, wanted: Sequence[str]) -> list[Series]:
    """Choose lines by the names of fields or lines; all of them if none is named.

    Raises
    ------
    InvalidArgument
        A name is not there, is not numeric, or there are too many lines; the message says what can be drawn.
    """
    found, others = plottable(schema)
    chosen: dict[Series, None] = {}
    for name in wanted:
        mine = [s for s in found if name in (s.label, ".".join(s.field) or VALUE, s.field[:1] and s.field[0])]
        if not mine:
            what = "is not numeric" if name in others else "is not there"
            raise InvalidArgument(f"field {name!r} of {channel!r} {what}; {_can_be_drawn(found)}")
        chosen |= dict.fromkeys(mine)
    result = list(chosen) if wanted else found
    if not result:
        raise InvalidArgument(f"channel {channel!r} has no numeric field: {', '.join(others)}")
    if len(result) > MAX_SERIES:
        raise InvalidArgument(
            f"channel {channel!r} would give {len(result)} lines or more, of which a plot shows at most {MAX_SERIES}; "
            f"name the ones to draw, or use LiveImage. {_can_be_drawn(found)}"
        )
    return result


def samples(batch: Batch, chosen: Sequence[Series]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return times (in nanoseconds since the epoch), shape (n_samples,), and values, shape (n_samples, n_series)."""
    data, time_ns = batch.along_time()
    parts = []
    for path in dict.fromkeys(s.field for s in chosen):
        part = data
        for name in path:
            part = part[name]
        part = part.reshape(len(part), -1)
        columns = [s.column for s in chosen if s.field == path]
        everything = columns == list(range(part.shape[1]))
        parts.append(part if everything else part[:, columns])
    return time_ns, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _leaves(dtype: np.dtype[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], np.dtype[Any]]]:
    if dtype.names is None:
        yield path, dtype
        return
    for name in dtype.names:
        inner = dtype[name]
        # An array of records inside a record has no place along one flattened axis; it is left to the user's own code.
        yield from _leaves(inner, (*path, name)) if inner.names else iter([((*path, name), inner)])


def _label(name: str, axes: Sequence[tuple[str, int]], column: int, only: bool) -> str:
    """Name a line: ``value``; ``lead 1`` where the channel has one field; else ``ecg lead 1``."""
    if not axes:
        return name
    place = np.unravel_index(column, [n for _, n in axes])
    return " ".join([*([] if only else [name]), *(f"{d} {int(k)}" for (d, _), k in zip(axes, place, strict=True))])


def _can_be_drawn(found: Sequence[Series]) -> str:
    labels = [s.label for s in found]
    return f"what can be drawn: {', '.join(labels[:8])}{' ...' if labels[8:] else ''}" if labels else "nothing can be"
