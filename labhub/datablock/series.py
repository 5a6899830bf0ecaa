"""What of a channel can be drawn as lines over time, and how to get it out of a batch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import Batch
from labhub.errors import InvalidArgument
from labhub.schema import TIME, VALUE, Leaf, Schema, leaves
from labhub.words import quoted

MAX_SERIES = 32
"""Most lines of one channel: more cannot be told apart."""
MOST_TOLD = 8
"""Most lines of a field, and most words in all, by which an error says what can be drawn."""


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


@dataclass(frozen=True)
class _Lines:
    """The lines of one numeric field; as many as it has columns, so that they are counted, not listed."""

    leaf: Leaf
    axes: tuple[tuple[str, int], ...]
    prefix: str
    unit: str

    def __len__(self) -> int:
        return math.prod(n for _, n in self.axes)

    def __iter__(self) -> Iterator[Series]:
        return (self.line(column) for column in range(len(self)))

    def line(self, column: int) -> Series:
        """Return one of them."""
        place = np.unravel_index(column, [n for _, n in self.axes]) if self.axes else ()
        words = [f"{d} {int(k)}" for (d, _), k in zip(self.axes, place, strict=True)]
        label = " ".join([*([self.prefix] if self.prefix else []), *words])
        return Series(label, self.unit, self.leaf.path, column)

    def named(self, label: str) -> list[Series]:
        """Return the line of that label, such as ``ecg lead 1``, if there is one."""
        words = [re.escape(self.prefix)] * bool(self.prefix) + [rf"{re.escape(d)} (0|[1-9]\d*)" for d, _ in self.axes]
        found = re.fullmatch(" ".join(words), label, re.ASCII)
        place = [int(k) for k in found.groups()] if found else []
        if not found or any(k >= n for k, (_, n) in zip(place, self.axes, strict=True)):
            return []
        return [self.line(int(np.ravel_multi_index(place, [n for _, n in self.axes])) if place else 0)]


def _plottable(schema: Schema) -> tuple[list[_Lines], list[str]]:
    """Every line that slots of a schema can give, field by field, and the names of the fields that can give none."""
    dims = schema.dims or tuple(f"dim_{k}" for k in range(len(schema.shape)))
    axes = [(d, n) for d, n in zip(dims, schema.shape, strict=True) if d != TIME]
    found, others = [], []
    for leaf in leaves(schema.dtype):
        if leaf.dtype.kind not in "biuf":
            others.append(leaf.name)
            continue
        # The axes of a field have no names of their own: they are called after the field, which then need not be told.
        inner = (*axes, *((leaf.path[-1] if leaf.path else VALUE, n) for n in leaf.shape))
        only = not leaf.path or schema.dtype.names == (leaf.name,) or (not axes and len(leaf.path) == 1)
        found.append(_Lines(leaf, inner, "" if only and inner else leaf.name, schema.unit_of(leaf)))
    return found, others


def choose(channel: str, schema: Schema, wanted: Sequence[str]) -> list[Series]:
    """Choose lines by the names of fields or lines; all of them if none is named.

    Raises
    ------
    InvalidArgument
        A name is not there, is not numeric, or there are too many lines; the message says what can be drawn.
    """
    found, others = _plottable(schema)
    chosen: list[_Lines | list[Series]] = []
    for name in wanted:
        if not isinstance(name, str):
            raise InvalidArgument(f"a field or a line has a name, which is text, not {quoted(name)}")
        whole = [lines for lines in found if name in (lines.leaf.name, *lines.leaf.path[:1])]
        single = [lines.named(name) for lines in found if lines not in whole]
        if not whole and not any(single):
            what = "is not numeric" if name in others else "is not there"
            raise InvalidArgument(f"field {name!r} of {channel!r} {what}; {_can_be_drawn(found)}")
        chosen += [*whole, *single]
    if not wanted:
        chosen += found
    total = max((len(lines) for lines in chosen), default=0)
    if not total:
        raise InvalidArgument(f"channel {channel!r} has no numeric field: {', '.join(others)}")
    result = list(dict.fromkeys(chain.from_iterable(chosen))) if total <= MAX_SERIES else []
    if not 0 < len(result) <= MAX_SERIES:
        raise InvalidArgument(
            f"channel {channel!r} would give {len(result) or sum(map(len, chosen))} lines, of which a plot shows at "
            f"most {MAX_SERIES}; name the ones to draw, or use LiveImage. {_can_be_drawn(found)}"
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


def _can_be_drawn(found: Sequence[_Lines]) -> str:
    labels = []
    for lines in found[: MOST_TOLD + 1]:
        if 0 < len(lines) <= MOST_TOLD:
            labels += [line.label for line in lines]
        elif lines:
            labels.append(f"{lines.line(0).label} to {lines.line(len(lines) - 1).label}")
    more = " ..." if labels[MOST_TOLD:] else ""
    return f"what can be drawn: {', '.join(labels[:MOST_TOLD])}{more}" if labels else "nothing can be"
