"""Slots as a table: named columns along ``time``. xarray, Arrow, pandas and Zarr take names, dims and units from here.

The names follow from the schema alone, so that each batch of a channel, its recording and a replay of that have the
same ones. A field keeps its dotted name where that is free and can be a name everywhere; no field is ever left out.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.schema import TIME, Leaf, Schema, leaves

SEQ = "seq"
SLOT, GAP = "slot", "gap"
OWN = (
    *(TIME, SEQ, "nbytes", "epoch"),
    *("slot_seq", "slot_time", "slot_nbytes", "slot_epoch", "gap_seq", "gap_time", "gap_slots", "gap_reason"),
)
"""Names in a table or a recording that are not those of fields."""
OWN_ATTRS = (
    *("channel", "labhub_schema", "producer_pid", "producer_hostname", "lossless", "recording_error"),
    *("clock_epochs", "clock_offset_ns", "lost", "Conventions", "coordinates"),
)
"""Attributes of a dataset or a recording that have a meaning of their own, the last two by CF."""
FIELD = "labhub_field"
"""Attribute of a column that has another name than its field: the dotted name of that."""
UNITS = "labhub_units"
"""Attribute with the user's word for the unit, where ``units`` cannot have it."""


@dataclass(frozen=True)
class Column:
    """One plain field of a channel as a column of a table.

    Attributes
    ----------
    name : str
        Unique in the table, also among its dims.
    leaf : Leaf
        The field.
    dims : tuple of str
        Names of the axes behind ``time``.
    byte_dim : str
        Name of one more axis, for a store that has bytes instead of text.
    unit : str
        Empty if unknown.
    """

    name: str
    leaf: Leaf
    dims: tuple[str, ...]
    byte_dim: str
    unit: str

    @property
    def field(self) -> str:
        """Dotted name of the field."""
        return self.leaf.name

    def values(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the column of slots or samples; an array that looks into them."""
        for name in self.leaf.path:
            rows = rows[name]
        return rows


@dataclass(frozen=True, eq=False)
class Layout:
    """The table that slots of a schema give.

    Attributes
    ----------
    columns : tuple of Column
        In the order of the fields.
    attrs : dict
        The user's attributes; one with a name of `OWN_ATTRS` has an underscore behind it.
    """

    columns: tuple[Column, ...]
    attrs: dict[str, Any]


def layout_of(schema: Schema) -> Layout:
    """Return the columns of a schema; worked out once for each `Schema` object."""
    known: Layout | None = vars(schema).get("_layout_of_table")
    if known is None:
        known = vars(schema)["_layout_of_table"] = Layout(tuple(_columns(schema)), _attrs(schema))
    return known


def along_time(
    schema: Schema, data: NDArray[Any], headers: NDArray[np.void]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64] | None]:
    """Return slots as rows along ``time``: slots that are blocks of samples are joined, and each sample has its time.

    Parameters
    ----------
    schema : Schema
    data : ndarray of shape (n_slots, *slot_shape)
    headers : ndarray of shape (n_slots,)
        Of dtype `SLOT_HEADER`.

    Returns
    -------
    rows : ndarray of shape (n_rows, ...)
        The ``time`` axis comes first.
    time_ns : ndarray of shape (n_rows,)
        In nanoseconds since the epoch, UTC.
    counts : ndarray of shape (n_slots,) or None
        Rows of each slot; None if each slot is a row.
    """
    time_ns = headers["timestamp_ns"]
    if schema.sample_rate is None:
        return data, time_ns, None
    axis = schema.dims.index(TIME)
    n_slots, n_samples = len(data), schema.shape[axis]
    rows = np.moveaxis(data, axis + 1, 1).reshape(n_slots * n_samples, *_without(schema.shape, axis))
    counts = np.full(n_slots, n_samples)
    if axis == 0:  # a partial commit ends in the middle of the time axis
        counts = np.minimum(headers["nbytes"].astype(np.int64) // (schema.slot_nbytes // n_samples), n_samples)
    if (counts == n_samples).all():
        back = np.arange(n_samples - 1, -1, -1)
        offsets = np.round(back * (1e9 / schema.sample_rate)).astype(np.int64)
        return rows, (time_ns[:, None] - offsets).ravel(), counts
    ahead = counts[:, None] - 1 - np.arange(n_samples)
    offsets = np.round(ahead * (1e9 / schema.sample_rate)).astype(np.int64)
    keep = ahead.ravel() >= 0
    return rows[keep], (time_ns[:, None] - offsets).ravel()[keep], counts


def seq_of(headers: NDArray[np.void], counts: NDArray[np.int64] | None) -> NDArray[np.uint64]:
    """Return the seq of each row of `along_time`."""
    seq: NDArray[np.uint64] = headers["seq"]
    return seq if counts is None else np.repeat(seq, counts)


def beside(name: str, taken: Container[str]) -> str:
    """Return a name with as many underscores behind it as it takes to be another one than those that are taken."""
    while name in taken:
        name += "_"
    return name


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _columns(schema: Schema) -> Iterator[Column]:
    taken = {*OWN, SLOT, GAP}  # in xarray, what is called as an axis is no data variable
    dims = tuple(_taking(dim, taken) for dim in _slot_dims(schema))
    found = list(leaves(schema.dtype))
    names = _names(found, taken)
    for leaf, name in zip(found, names, strict=True):
        own = tuple(_taking(f"{name}_{k}", taken) for k in range(len(leaf.shape)))
        yield Column(name, leaf, (*dims, *own), _taking(f"{name}_byte", taken), schema.unit_of(leaf))


def _slot_dims(schema: Schema) -> Iterator[str]:
    """Yield the names of a slot's axes other than ``time``; ``slot`` and ``gap`` are axes of a recording."""
    for dim in schema.dims or (f"dim_{k}" for k in range(len(schema.shape))):
        if dim != TIME:
            yield f"{dim}_" if dim in (SLOT, GAP) else dim


def _names(found: Iterable[Leaf], taken: set[str]) -> list[str]:
    """Give each field a name: first those that can keep their own, of two equal ones the field that is not nested."""
    places = list(enumerate(found))
    names: dict[int, str] = {}
    for k, leaf in sorted(places, key=lambda place: len(place[1].path)):
        if leaf.name == _possible(leaf.name) and leaf.name not in taken:
            names[k] = _taking(leaf.name, taken)
    for k, leaf in places:
        if k not in names:
            names[k] = _taking(_possible(leaf.name), taken)
    return [names[k] for k, _ in places]


def _possible(name: str) -> str:
    """Return what can be the name of an array in Zarr, whose names are parts of paths."""
    name = re.sub(r"[/\\\0]", "_", name)
    return f"field_{name}" if name == "zarr.json" or name.startswith("__") or not name.strip(".") else name


def _taking(name: str, taken: set[str]) -> str:
    name = beside(name, taken)
    taken.add(name)
    return name


def _attrs(schema: Schema) -> dict[str, Any]:
    """Return the user's attributes; those that would change the meaning of a dataset get other names."""
    taken = {*OWN_ATTRS, *schema.attrs}
    return {_taking(k, taken) if k in OWN_ATTRS else k: value for k, value in schema.attrs.items()}
