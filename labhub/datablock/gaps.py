"""Losses made explicit: a dataset in which what was lost is there, as NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from labhub.datablock.batch import Batch
from labhub.datablock.dataset import TIME_ENCODING
from labhub.datablock.dates import DTYPE, NAT
from labhub.errors import InvalidArgument
from labhub.schema import TIME

if TYPE_CHECKING:
    import xarray as xr

Gaps = Literal["leave", "nan"]

MAX_FILL_NBYTES = 32 * 1024 * 1024
"""Of a gap that would take more memory than this (in bytes), only the newest part is filled."""

MAX_EXACT = 2**53
"""Up to here a float is the same number as every integer."""


class GapFiller:
    """Turns batches that follow each other into datasets without holes between them.

    A gap is what is missing between two batches, by their seqs: slots that were lost, or skipped. What was lost before
    the first batch has no beginning and is not filled. Times in a gap are evenly spaced between those of its
    neighbours: that is the sample grid of blocks, if the producer kept its rate, and a grid by seq for plain slots.

    Attributes
    ----------
    last : tuple of (int, datetime64) or None
        Seq and time of the last sample that was filled up to.
    """

    def __init__(self) -> None:
        self.last: tuple[int, np.datetime64] | None = None

    def fill(self, batch: Batch) -> xr.Dataset:
        """Return `Batch.to_xarray` with the gap before it.

        Integers become floats (text and booleans, objects), in every dataset, so that the datasets can be joined.

        Returns
        -------
        xarray.Dataset
            Of the missing samples and those of the batch, along ``time``. ``seq`` counts through, and
            ``attrs["lost"]`` is the number of slots that are missing.

        Raises
        ------
        InvalidArgument
            An integer is so large that no float is the same number.
        """
        found = batch.to_xarray()
        if not found.sizes[TIME]:
            return found
        missing = self._missing(batch)
        per_slot = max(1, found.sizes[TIME] // len(batch)) if TIME in batch.schema.dims else 1
        filled = min(missing, max(1, MAX_FILL_NBYTES // max(1, batch.schema.slot_nbytes)))
        rows = filled * per_slot
        # One row more than needed is put on and taken off again, so that the dtypes are those of a gap in any case.
        padded = found.pad({TIME: (rows + 1, 0)}, keep_attrs=True).isel({TIME: slice(1, None)})
        for name, variable in found.data_vars.items():
            _check_floats(str(name), variable)
            padded.variables[name].encoding = variable.encoding
            if DTYPE in variable.attrs:
                padded[name] = variable.pad({TIME: (rows, 0)}, constant_values=NAT, keep_attrs=True)
        first = int(batch.seq[0])
        seq = np.repeat(np.arange(first - filled, first, dtype=np.int64).astype(np.uint64), per_slot)
        time = self._times(rows, found[TIME].values[0])
        self.last = int(batch.seq[-1]), found[TIME].values[-1]
        times = np.concatenate([time, found[TIME].values])
        return padded.assign_coords(
            {
                TIME: (TIME, times, None, TIME_ENCODING),
                "seq": (TIME, np.concatenate([seq, found["seq"].values])),
            }
        ).assign_attrs(lost=missing)

    def _missing(self, batch: Batch) -> int:
        """How many slots are missing before a batch."""
        if self.last is None:
            return 0
        between = int(batch.seq[0]) - self.last[0] - 1
        # Another incarnation of the channel counts its seqs from zero on.
        return between if between >= 0 else min(batch.lost, int(batch.seq[0]))

    def _times(self, rows: int, first: np.datetime64) -> np.ndarray[tuple[int], np.dtype[np.datetime64]]:
        """Times of the missing samples: evenly between the sample before the gap and the one behind it."""
        if self.last is None or not rows:
            return np.empty(0, first.dtype)
        before = self.last[1]
        step = (first - before).astype(np.int64) / (rows + 1)
        return first - np.round(np.arange(rows, 0, -1) * step).astype("timedelta64[ns]")


def _check_floats(name: str, variable: xr.DataArray) -> None:
    """Raise unless a float is the same number as each integer."""
    if variable.dtype.kind not in "iu" or variable.dtype.itemsize < 8 or DTYPE in variable.attrs:
        return
    values = variable.values
    large = values[(values > MAX_EXACT) | ((values < 0) & (values < np.int64(-MAX_EXACT)))]
    for number in large.tolist():
        if int(float(number)) != number:
            raise InvalidArgument(
                f"gaps='nan' makes floats of integers, and no float is {number}, of the field {name!r}; use "
                "gaps='leave', or make the field a float or a date"
            )
