"""Batches as Arrow tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from labhub.datablock.batch import Batch
from labhub.errors import InvalidArgument, MissingDependency
from labhub.schema import TIME

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def table_of(batch: Batch) -> pa.Table:
    """Return a batch as an Arrow table; see `Batch.to_arrow`."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependency("to_arrow needs pyarrow; run: pip install 'labhub[arrow]'", package="pyarrow") from None
    found = batch.to_xarray()
    time = pa.array(found[TIME].values, pa.timestamp("ns", "UTC"))
    fields, columns = [pa.field(TIME, time.type), pa.field("seq", pa.uint64())], [time, pa.array(found["seq"].values)]
    for name, variable in found.data_vars.items():
        try:
            column = _column(pa, variable.transpose(TIME, ...).values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise InvalidArgument(f"Arrow has no place for the field {name!r} of {variable.dtype}: {error}") from None
        unit = variable.attrs.get("units")
        fields.append(pa.field(str(name), column.type, metadata={"units": unit} if unit else None))
        columns.append(column)
    return pa.table(columns, pa.schema(fields, {"channel": batch.channel}))


def _column(pa: Any, values: NDArray[Any]) -> pa.Array:
    """One column; further axes become lists of fixed size."""
    if values.dtype.kind in "US":
        flat = pa.array(values.ravel().tolist())
    else:
        flat = pa.array(np.ascontiguousarray(values).ravel().astype(values.dtype.newbyteorder("="), copy=False))
    for length in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, length)
    return flat
