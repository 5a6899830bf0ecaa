"""Many slots read at once, and their way into xarray and pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labhub.datablock import checksums
from labhub.datablock.table import along_time
from labhub.schema import Schema
from labhub.tables import html_facts
from labhub.words import size, visible

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from matplotlib.figure import Figure

SLOT_HEADER = np.dtype(
    [
        ("seq", "<u8"),
        ("timestamp_ns", "<i8"),
        ("nbytes", "<u8"),
        ("flags", "<u4"),
        ("epoch", "<u4"),
        ("checksum", "V32"),
    ]
)
"""One slot header as the native core copies it."""


class Batch(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Slots that follow each other, copied out of the ring; it owns its memory and pins nothing.

    Attributes
    ----------
    channel : str
        Where they come from.
    schema : Schema
        What one slot looks like.
    data : ndarray of shape (n_slots, ...)
        The slots, each of the schema's shape. Bytes behind a slot's committed length are zero.
    headers : ndarray of shape (n_slots,)
        Their headers, of dtype `SLOT_HEADER`.
    lost : int
        How many slots were lost just before the first one.
    complete : bool
        False for a snapshot that reaches back less far than was asked for: the ring has overwritten older slots.
    """

    channel: str
    schema: Schema
    data: NDArray[Any]
    headers: NDArray[np.void]
    lost: int = 0
    complete: bool = True

    @property
    def seq(self) -> NDArray[np.uint64]:
        """Seq of each slot, shape (n_slots,)."""
        return self.headers["seq"]

    @property
    def timestamp_ns(self) -> NDArray[np.int64]:
        """Time of each slot (in nanoseconds since the epoch, UTC), shape (n_slots,); that of its last sample."""
        return self.headers["timestamp_ns"]

    @property
    def time(self) -> NDArray[np.datetime64]:
        """Time of each slot (UTC), shape (n_slots,), datetime64[ns]."""
        return self.timestamp_ns.astype("datetime64[ns]")

    @property
    def nbytes(self) -> NDArray[np.uint64]:
        """Committed bytes of each slot, shape (n_slots,)."""
        return self.headers["nbytes"]

    @property
    def epoch(self) -> int:
        """Epoch of the producer that wrote these slots; it rises with each takeover. A batch never spans two."""
        return int(self.headers["epoch"][0])

    def __len__(self) -> int:
        return len(self.data)

    def to_xarray(self) -> xr.Dataset:
        """Return the fields as an `xarray.Dataset` along ``time``.

        Each field is a data variable (a plain dtype gives one called ``value``) with its unit in ``attrs["units"]``, or
        in ``attrs["labhub_units"]`` for dates and durations; ``seq`` is a coordinate. A field of the name of a
        coordinate, of a dim or of something else in a recording gets an underscore behind it (``time_``), and no field
        is left out. Dates and durations have the unit of their dtype where xarray has it, else a finer one; those of
        picoseconds or months, say, are integers with their dtype in ``attrs["labhub_dtype"]``. Slots that are blocks of
        samples are joined along their ``time`` axis, and each sample has its own time: the slot's timestamp is that of
        its last sample, the others follow from the sample rate.

        Returns
        -------
        xarray.Dataset

        Raises
        ------
        InvalidArgument
            A date or duration is beyond what xarray can hold; the message names it.

        Examples
        --------
        >>> with hub.producer("pump", like={"pressure": 0.0, "on": False}, units={"pressure": "mbar"}) as pump:
        ...     count = pump.write_many([(1013.2, True), (1013.4, False)])
        ...     ds = hub["pump"].snapshot().to_xarray()
        >>> ds.pressure.attrs["units"], ds.pressure.values, ds.seq.values
        ('mbar', array([1013.2, 1013.4]), array([0, 1], dtype=uint64))
        """
        from labhub.datablock.dataset import dataset_of

        return dataset_of(self.channel, self.schema, self.data, self.headers)

    def along_time(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the samples one after the other, and the time of each.

        Returns
        -------
        data : ndarray of shape (n_samples, ...)
            The slots, with those that are blocks of samples joined along their ``time`` axis, which comes first.
        time_ns : ndarray of shape (n_samples,)
            Time of each sample (in nanoseconds since the epoch, UTC).
        """
        data, time_ns, _ = along_time(self.schema, self.data, self.headers)
        return data, time_ns

    def to_arrow(self) -> pa.Table:
        """Return the fields as an Arrow table, one row for each slot, or for each sample of blocks of samples.

        Returns
        -------
        pyarrow.Table
            With the columns ``time`` (UTC, in ns), ``seq`` and the fields, called as in `to_xarray`; further axes are
            lists of fixed size. The metadata of a field have its ``units`` and, under ``labhub_field``, its dotted
            name; those of the table have the ``channel`` and, under ``labhub_schema``, the JSON of its schema.

        Raises
        ------
        MissingDependency
            If pyarrow is not installed.
        InvalidArgument
            If Arrow has no type for a field, for example for complex numbers, or for one of its values.
        """
        from labhub.datablock.arrow import table_of

        return table_of(self.channel, self.schema, self.data, self.headers)

    def to_pandas(self) -> pd.DataFrame:
        """Return `to_xarray` as a data frame, indexed by time (and by the other dims, if there are any).

        Numbers have the machine's byte order, without which pandas can neither sort nor group by them. Raw bytes
        (dtype ``V``) are `bytes`.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        InvalidArgument
            As `to_xarray`.
        """
        found = self.to_xarray()
        foreign = {name: v.astype(v.dtype.newbyteorder("=")) for name, v in found.items() if not v.dtype.isnative}
        foreign |= {name: v.astype(object) for name, v in found.items() if v.dtype.kind == "V"}  # pandas 2 takes none
        return found.assign(foreign).to_dataframe()

    def verify_checksum(self) -> NDArray[np.bool_]:
        """Compare each slot with the checksum that its producer stored; for a channel with ``checksum="manual"``.

        Returns
        -------
        ndarray of shape (n_slots,), bool
            False for a slot that is corrupt.

        Raises
        ------
        InvalidArgument
            If a slot carries no checksum.
        """
        checksums.require_stored(self.headers)
        good = np.ones(len(self), np.bool_)
        good[checksums.mismatches(self.headers, self.data)] = False
        return good

    def by_epoch(self) -> list[Batch]:
        """Return the slots of each epoch as a batch of its own."""
        epochs = self.headers["epoch"]
        if not len(self) or epochs[0] == epochs[-1]:  # it only ever rises
            return [self]
        seams = np.flatnonzero(np.diff(epochs)) + 1
        batches, rest, done = [], self, 0
        for seam in seams:
            head, rest = rest.split(int(seam) - done)
            batches.append(head)
            done = int(seam)
        return [*batches, rest]

    def plot(self, *fields: str) -> Figure:
        """Draw the samples over time, as a figure for a paper: one panel for each unit.

        Parameters
        ----------
        *fields : str
            Names of the fields, or of single lines such as ``"lead 1"``; all of them if none is given.

        Returns
        -------
        matplotlib.figure.Figure
            ``savefig("pressure.pdf")`` writes it to a file.

        Raises
        ------
        InvalidArgument
            A field is not there or not numeric (the message says what can be drawn), or the batch is empty.
        ImportError
            matplotlib is not installed.
        """
        try:
            from labhub.datablock.figure import figure_of
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "matplotlib":
                raise
            raise ImportError("Batch.plot() needs matplotlib: pip install 'labhub[plot]'", name="matplotlib") from None
        return figure_of(self, fields)

    def split(self, n: int) -> tuple[Batch, Batch]:
        """Return the first `n` slots and the rest; the loss belongs to the first."""
        head = Batch(self.channel, self.schema, self.data[:n], self.headers[:n], self.lost, self.complete)
        return head, Batch(self.channel, self.schema, self.data[n:], self.headers[n:])

    def _repr_html_(self) -> str:
        if not len(self):
            return html_facts(f"batch of {self.channel}: empty", [("lost", str(self.lost))])
        facts = [
            ("slots", f"{len(self)}, seq {self.seq[0]} to {self.seq[-1]}"),
            ("time", f"{self.time[0]} to {self.time[-1]}"),
            ("lost before", str(self.lost)),
            *([] if self.complete else [("complete", "no: the ring has overwritten older slots that were asked for")]),
            ("memory", size(self.data.nbytes)),
        ]
        return html_facts(f"batch of {self.channel}", [*facts, *self.schema.facts()])

    def __repr__(self) -> str:
        told = f"lost={self.lost}" + ("" if self.complete else ", complete=False")
        if not len(self):
            return f"Batch({self.channel}: empty, {told})"
        shape = "x".join(map(str, self.data.shape))
        kind = self.data.dtype if self.data.dtype.names is None else ", ".join(self.data.dtype.names)
        return f"Batch({self.channel}: seq {self.seq[0]}-{self.seq[-1]}, {shape} of {visible(kind)}, {told})"
