"""Slots as xarray datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub.datablock import dates
from labhub.datablock.table import SEQ, UNITS, Column, along_time, layout_of, seq_of
from labhub.schema import TIME

if TYPE_CHECKING:
    import xarray as xr

    from labhub.schema import Schema

TIME_ENCODING = {"units": "nanoseconds since 1970-01-01", "calendar": dates.CALENDAR, "dtype": "int64"}
"""How times are saved: without it, xarray takes the unit that fits the first piece, and later pieces do not fit it."""


def dataset_of(channel: str, schema: Schema, data: NDArray[Any], headers: NDArray[np.void]) -> xr.Dataset:
    """Return slots as a dataset; see `Batch.to_xarray`."""
    import pandas as pd
    import xarray as xr

    layout = layout_of(schema)
    rows, time_ns, counts = along_time(schema, data, headers)
    variables = {column.name: _variable(column, rows) for column in layout.columns}
    # A finished index: to make one of an array, xarray takes a third of all its time here.
    times = pd.DatetimeIndex(time_ns.view("datetime64[ns]"))
    coordinates = {
        TIME: xr.IndexVariable(TIME, times, None, TIME_ENCODING),  # type: ignore[no-untyped-call]
        SEQ: xr.Variable((TIME,), seq_of(headers, counts), None, None, fastpath=True),
    }
    return xr.Dataset(variables, coordinates, {**layout.attrs, "channel": channel})


def _variable(column: Column, rows: NDArray[Any]) -> xr.Variable:
    import xarray as xr

    values = column.values(rows)
    attrs: dict[str, Any] = {}
    encoding: dict[str, Any] = {}
    if not dates.is_time(values.dtype):
        if column.unit:
            attrs["units"] = column.unit
    else:
        if column.unit:
            attrs[UNITS] = column.unit  # xarray saves its own under `units`
        values, more, encoding = _times(values, column.field)
        attrs |= more
    return xr.Variable((TIME, *column.dims), values, attrs, encoding, fastpath=True)


def _times(values: NDArray[Any], field: str) -> tuple[NDArray[Any], dict[str, str], dict[str, Any]]:
    """Return dates or durations as xarray can hold them, with attributes and the encoding with which to save them."""
    shown = dates.fine(values.dtype)
    if shown is None:
        return dates.integers(values), {dates.DTYPE: dates.name_of(values.dtype)}, {}
    cf = dates.cf_units(shown)
    assert cf is not None  # CF has all the units that are fine
    return dates.exact(values, shown, field), {}, {**cf, "dtype": "int64"}
