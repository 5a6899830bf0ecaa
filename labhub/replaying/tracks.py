"""What can be replayed: a track is the slots of one channel, block by block, wherever they come from."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub.errors import ChannelNotFound, InvalidArgument, MissingDependency, NotARecording
from labhub.names import check_name
from labhub.recording.reading import stored_channels
from labhub.schema import TIME, Schema
from labhub.words import did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

Source = "str | os.PathLike[str] | xr.Dataset | pd.DataFrame"
BLOCK_SLOTS = 4096
"""Slots of a table that are converted at a time."""


@dataclass(frozen=True, eq=False)
class Block:
    """Slots that follow each other.

    Attributes
    ----------
    data : ndarray of shape (n_slots, *slot_shape)
    timestamp_ns : ndarray of shape (n_slots,)
        Original time of each (in nanoseconds since the epoch, UTC).
    nbytes : ndarray of shape (n_slots,)
        Committed bytes of each.
    """

    data: NDArray[Any]
    timestamp_ns: NDArray[np.int64]
    nbytes: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Track:
    """One channel that can be replayed.

    Attributes
    ----------
    channel : str
        Its name.
    schema : Schema
    n_slots : int
    begins_ns, ends_ns : int
        Time of its first and its last slot (in nanoseconds since the epoch, UTC).
    blocks : callable
        Reads it from the beginning; an iterator of `Block`.
    """

    channel: str
    schema: Schema
    n_slots: int
    begins_ns: int
    ends_ns: int
    blocks: Callable[[], Iterator[Block]]


def tracks_of(source: Any, channels: tuple[str, ...], name: str | None) -> list[Track]:
    """Find what a source holds.

    Parameters
    ----------
    source : path, Dataset or DataFrame
        A recording; a CSV or Parquet file; or what xarray or pandas have read.
    channels : tuple of str
        Names or shell patterns; everything if it is empty.
    name : str or None
        Name of the channel for a source that has none of its own.

    Raises
    ------
    NotARecording
        There is nothing of that kind at a path.
    ChannelNotFound
        A name or pattern matches nothing.
    InvalidArgument
        A table without times, for example.
    """
    tracks = _all_tracks(source, name)
    if not channels:
        return tracks
    found: dict[str, Track] = {}
    for pattern in channels:
        mine = {t.channel: t for t in tracks if fnmatch.fnmatchcase(t.channel, pattern)}
        if not mine:
            hint = did_you_mean(pattern, (t.channel for t in tracks)) or "it is empty"
            raise ChannelNotFound(f"nothing recorded matches {pattern!r}; {hint}", channel=pattern)
        found |= mine
    return list(found.values())


def _all_tracks(source: Any, name: str | None) -> list[Track]:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        match path.suffix.lower():
            case ".csv" | ".parquet" | ".pq":
                return [_table(_read_table(path), name or path.stem)]
            case _:
                return [
                    Track(s.name, s.schema, s.n_slots, *s.span_ns, lambda s=s: _blocks(s.read()))  # type: ignore[misc]
                    for s in stored_channels(path)
                    if s.n_slots
                ]
    kind = type(source).__name__
    if kind == "DataFrame":
        return [_table(source, name or "replay")]
    if kind == "Dataset":
        return [_dataset(source, name or str(source.attrs.get("channel", "replay")))]
    raise InvalidArgument(f"replay takes a path, an xarray.Dataset or a pandas.DataFrame, not {kind}")


def _blocks(parts: Iterator[tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]]) -> Iterator[Block]:
    return (Block(*part) for part in parts)


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    except FileNotFoundError:
        raise NotARecording(f"{path} does not exist", path=str(path)) from None
    except ImportError:
        raise MissingDependency("Parquet needs pyarrow: pip install 'labhub[arrow]'", package="pyarrow") from None
    except (ValueError, UnicodeError, OSError) as error:
        raise NotARecording(f"{path} cannot be read as a table: {error}", path=str(path)) from None


def _table(table: pd.DataFrame, name: str) -> Track:
    """Make a track of a table: one slot for each row; its times are a column or the index, dates or seconds."""
    if TIME in table.columns:
        table = table.set_index(TIME)
    time_ns = _times_of(table.index)
    numeric = table.select_dtypes(["number", "bool"])
    if numeric.empty:
        raise InvalidArgument(f"the table has no numeric column that could be replayed: {', '.join(map(str, table))}")
    names = [str(c) for c in numeric.columns]
    dtype = np.dtype([(n, numeric[c].dtype) for n, c in zip(names, numeric.columns, strict=True)])
    data = np.empty(len(numeric), dtype)
    for column, field in zip(numeric.columns, names, strict=True):
        data[field] = numeric[column].to_numpy()
    return _track(name, Schema(dtype), data, time_ns)


def _times_of(index: pd.Index[Any]) -> NDArray[np.int64]:
    """Return the times of a table (in nanoseconds since the epoch, UTC); what has no time zone is taken for UTC."""
    import pandas as pd

    try:
        if index.name == TIME and pd.api.types.is_numeric_dtype(index):
            return np.round(index.to_numpy(float) * 1e9).astype(np.int64)
        if index.name == TIME or isinstance(index, pd.DatetimeIndex):
            return pd.DatetimeIndex(pd.to_datetime(index, utc=True)).as_unit("ns").asi8
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"the table's times cannot be read as dates or seconds: {error}") from None
    raise InvalidArgument("a table needs a column or an index called 'time': dates, or seconds; rename yours to that")


def _dataset(dataset: xr.Dataset, name: str) -> Track:
    """Make a track of a dataset: one slot for each element along ``time``, of its variables that have this axis."""
    if TIME not in dataset.dims or TIME not in dataset.coords:
        raise InvalidArgument("a dataset needs the coordinate 'time'; ds.rename(...) gives yours that name")
    variables = {str(k): v.transpose(TIME, ...) for k, v in dataset.data_vars.items() if TIME in v.dims}
    if not variables:
        raise InvalidArgument("the dataset has no variable along 'time'")
    dims = {v.dims[1:] for v in variables.values()}
    units = {k: str(v.attrs["units"]) for k, v in variables.items() if "units" in v.attrs}
    time_ns = dataset[TIME].values.astype("datetime64[ns]").astype(np.int64)
    if len(variables) == 1:
        ((field, only),) = variables.items()
        unit = {"value": units[field]} if field in units else {}
        schema = Schema(only.dtype, only.shape[1:], tuple(map(str, only.dims[1:])), unit)
        return _track(name, schema, only.values, time_ns)
    if len(dims) != 1:
        raise InvalidArgument(f"variables of different dims cannot be one channel; choose some: {', '.join(variables)}")
    shape = next(iter(variables.values())).shape[1:]
    data = np.empty((len(time_ns), *shape), np.dtype([(k, v.dtype) for k, v in variables.items()]))
    for field, variable in variables.items():
        data[field] = variable.values
    return _track(name, Schema(data.dtype, shape, tuple(map(str, dims.pop())), units), data, time_ns)


def _track(name: str, schema: Schema, data: NDArray[Any], time_ns: NDArray[np.int64]) -> Track:
    check_name(name)
    if not len(data):
        raise InvalidArgument(f"there is nothing to replay on {name!r}: no rows")
    if (np.diff(time_ns) < 0).any():
        order = np.argsort(time_ns, kind="stable")
        data, time_ns = data[order], time_ns[order]

    def blocks() -> Iterator[Block]:
        for k in range(0, len(data), BLOCK_SLOTS):
            part = slice(k, k + BLOCK_SLOTS)
            nbytes = np.full(len(time_ns[part]), schema.slot_nbytes, np.uint64)
            yield Block(data[part], time_ns[part], nbytes)

    return Track(name, schema, len(data), int(time_ns[0]), int(time_ns[-1]), blocks)
