"""Datasets of xarray as tracks: one slot for each element along ``time``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.datablock.table import FIELD
from labhub.errors import InvalidArgument
from labhub.replaying.columns import Column, Found, LeftOut, array_of, plain_value
from labhub.replaying.restored import BESIDE, DTYPE, SCHEMA, UNITS, as_dates, restored_dataset, unit_of
from labhub.replaying.tables import array_of_series, field_name, note_attrs
from labhub.replaying.times import TimeUnit, in_unit, times_ns
from labhub.replaying.tracks import Track, track_of
from labhub.schema import TIME, VALUE

if TYPE_CHECKING:
    import xarray as xr

_READ = ("units", UNITS, DTYPE, FIELD, "coordinates")
"""Attributes of a variable that are no notes."""
MOST_NOTED = 1024
"""A variable without time, of at most so many elements, is kept as a note of the channel."""


def dataset_track(dataset: xr.Dataset, name: str, unit: TimeUnit | None) -> Track:
    """Make a track of a dataset; one that was opened from a recording gives the channel that was recorded."""
    if TIME not in dataset.dims or TIME not in dataset.coords:
        raise InvalidArgument("a dataset needs the coordinate 'time'; ds.rename(...) gives yours that name")
    dataset = dataset.transpose(TIME, ...)
    time_ns = _times_of(dataset, unit)
    found = Found()
    if unit is None and (track := restored_dataset(dataset, name, time_ns, found.words)) is not None:
        return track
    recorded = SCHEMA in dataset.attrs
    ours = recorded or ("channel" in dataset.attrs and "seq" in dataset.coords and dataset["seq"].dtype == np.uint64)
    note_attrs(found, dataset.attrs)
    for key, variable in dataset.variables.items():
        shown = key if isinstance(key, str) else field_name(key)
        if (ours and key in dataset.coords and shown in BESIDE) or shown == TIME:
            continue
        if TIME in variable.dims:
            _keep(found, shown, dataset[key])
        elif not (recorded and shown.startswith(("slot_", "gap_"))):
            _note(found, shown, dataset[key], essential=key in dataset.data_vars)
    if not found.columns and not found.words:
        raise InvalidArgument("the dataset has no variable along 'time'")
    plain = len(found.columns) == 1 and (not ours or found.columns[0].name == VALUE)
    if plain and found.columns[0].name != VALUE:
        found.attrs.setdefault("variable", found.columns[0].name)
    return track_of(name, found, time_ns, plain=plain)


def _where(k: int) -> str:
    return f"element {k} along 'time'"


def _times_of(dataset: xr.Dataset, unit: TimeUnit | None) -> Any:
    import pandas as pd
    import xarray as xr

    time = dataset[TIME]
    if time.dtype.kind in "iuf" and "units" in time.attrs and unit is None:
        said = str(time.attrs["units"])
        if " since " in said.lower():
            try:
                time = xr.decode_cf(xr.Dataset(coords={TIME: time}))[TIME]
            except (ValueError, OverflowError) as error:
                raise InvalidArgument(f"the times cannot be read as {said!r}: {error}") from None
        else:
            values, unit = in_unit(np.asarray(time.values), said)
            return times_ns(values, _where, unit)
    index = time.to_index()
    if isinstance(index, pd.PeriodIndex):
        return times_ns(index, _where, unit)
    return times_ns(np.asarray(time.values), _where, unit)


def _keep(found: Found, name: str, array: xr.DataArray) -> None:
    """Keep a variable along time; one that Dask computes is computed block by block."""
    attrs = dict(array.attrs)
    unit = unit_of(attrs) or ""
    dims = tuple(map(str, array.dims[1:]))
    try:
        dtype: Any = array.dtype
        if not isinstance(dtype, np.dtype):  # one of pandas
            column = Column.of(name, array_of_series(array.to_series(), name, _where, found.words), dims, unit)
        elif DTYPE in attrs:
            values = as_dates(_computed(array, slice(None)), str(attrs[DTYPE]))
            column = Column.of(name, values, dims, unit)
        elif array.chunks is not None and dtype.kind in "biufcSU" and dtype.itemsize:
            column = Column(name, dtype, array.shape[1:], lambda rows: _computed(array, rows), dims, unit)
        else:
            column = Column.of(name, array_of(_computed(array, slice(None)), name, _where), dims, unit)
    except LeftOut as reason:
        found.words.append(f"variable {name!r} is left out: {reason}")
        return
    if column.dims and len(column.dims) != len(column.shape):  # objects that are arrays
        column = Column(name, column.dtype, column.shape, column.read, (), unit)
    found.columns.append(column)
    found.note({k: v for k, v in attrs.items() if k not in _READ}, f"{name}.")


def _computed(array: xr.DataArray, rows: Any) -> Any:
    return np.asarray(array.isel({TIME: rows}).values)


def _note(found: Found, name: str, array: xr.DataArray, *, essential: bool) -> None:
    """Keep a variable without time as a note, if it is small enough; if not, say so, or refuse it if it is data."""
    if array.size > MOST_NOTED:
        if essential:
            raise InvalidArgument(
                f"the variable {name!r} has no axis 'time' and {array.size} elements, which is too much for a note; "
                f"leave it out: ds.drop_vars({name!r})"
            )
        found.words.append(f"coordinate {name!r} is left out: {array.size} elements are too many for a note")
        return
    key = name if name not in found.attrs else f"{name}.values"
    try:
        found.attrs[key] = plain_value(np.asarray(array.values))
    except TypeError as error:
        found.words.append(f"{name!r} is left out: {error} is no plain value")
        return
    found.note(array.attrs, f"{name}.")
