"""What can be replayed: recordings, files of tables, and what pandas, pyarrow and xarray have read."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labhub.errors import ChannelNotFound, InvalidArgument, LabHubError
from labhub.names import NAME
from labhub.recording.reading import StoredChannel, stored_channels
from labhub.replaying.csvfile import csv_track
from labhub.replaying.datasets import dataset_track
from labhub.replaying.tables import arrow_track, frame_track, parquet_table
from labhub.replaying.times import TimeUnit
from labhub.replaying.tracks import Block, Track
from labhub.words import did_you_mean

TABLES = (".csv", ".parquet", ".pq")
"""Suffixes of files that are no recordings."""
UNNAMED = "replay"
"""Name of the channel of a source that has none."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """What a source holds.

    Attributes
    ----------
    good : list of Track
        What can be replayed.
    errors : dict of str to LabHubError
        Why another channel cannot, by its name.
    """

    good: list[Track]
    errors: dict[str, LabHubError] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of all channels."""
        return [*(track.channel for track in self.good), *self.errors]


def tracks_of(
    source: Any, channels: tuple[str, ...], name: str | None, unit: TimeUnit | None, key: str | None = None
) -> Tracks:
    """Find what a source holds.

    Parameters
    ----------
    source : path, Dataset, DataArray, DataFrame, Series or pyarrow.Table
        A recording; a CSV or Parquet file; or what xarray, pandas or pyarrow have read.
    channels : tuple of str
        Names or shell patterns; everything if it is empty.
    name : str or None
        Name of the channel for a source that has none of its own.
    unit : str or None
        Unit of times that are numbers.
    key : str or None
        Who must have signed a recording, or ``"any"``; this user unless given.

    Raises
    ------
    UntrustedSigner
        A recording is signed by somebody else.
    NotARecording
        There is nothing of that kind at a path.
    ChannelNotFound
        A name or pattern matches nothing.
    InvalidArgument
        A table without times, for example.
    """
    tracks = _all_tracks(source, name, unit, key)
    if not channels:
        return tracks
    wanted: set[str] = set()
    for pattern in channels:
        mine = fnmatch.filter(tracks.names, pattern)
        if not mine:
            hint = did_you_mean(pattern, tracks.names) or "it is empty"
            raise ChannelNotFound(f"nothing recorded matches {pattern!r}; {hint}", channel=pattern)
        wanted |= set(mine)
    good = [track for track in tracks.good if track.channel in wanted]
    return Tracks(good, {k: error for k, error in tracks.errors.items() if k in wanted})


def _all_tracks(source: Any, name: str | None, unit: TimeUnit | None, key: str | None) -> Tracks:
    is_path = isinstance(source, str | os.PathLike)
    if key is not None and not (is_path and Path(source).suffix.lower() not in TABLES):
        raise InvalidArgument("only a recording is signed; leave key= out for tables and datasets")
    if is_path:
        path = Path(source)
        match path.suffix.lower():
            case ".csv":
                return Tracks([csv_track(path, name or path.stem, unit)])
            case ".parquet" | ".pq":
                return Tracks([arrow_track(parquet_table(path), name or path.stem, unit)])
        return _recorded(path, unit, key)
    match _kind_of(source):
        case ("pandas", "DataFrame"):
            return Tracks([frame_track(source, name or _named(source.attrs), unit)])
        case ("pandas", "Series"):
            return Tracks([frame_track(source.to_frame(source.name or "value"), name or _named(source.attrs), unit)])
        case ("xarray", "Dataset"):
            return Tracks([dataset_track(source, name or _named(source.attrs), unit)])
        case ("xarray", "DataArray"):
            dataset = source.to_dataset(name=source.name or "value")
            return Tracks([dataset_track(dataset, name or _named(source.attrs), unit)])
        case ("pyarrow", "Table"):
            found = (source.schema.metadata or {}).get(b"channel", b"").decode(errors="replace")
            return Tracks([arrow_track(source, name or _named({"channel": found}), unit)])
    raise InvalidArgument(
        f"replay takes a path, an xarray.Dataset, a pandas.DataFrame or a pyarrow.Table, not {type(source).__name__}"
    )


def _kind_of(source: Any) -> tuple[str, str]:
    """Return package and name of the class, of those known here, that a source is of."""
    known = {"pandas": ("DataFrame", "Series"), "xarray": ("Dataset", "DataArray"), "pyarrow": ("Table",)}
    for cls in type(source).__mro__:
        package = cls.__module__.partition(".")[0]
        if cls.__name__ in known.get(package, ()):
            return package, cls.__name__
    return "", ""


def _named(attrs: Any) -> str:
    """Return the channel that a source says it is of, if that can be a name."""
    said = str(attrs.get("channel", ""))
    return said if NAME.fullmatch(said) else UNNAMED


def _recorded(path: Path, unit: TimeUnit | None, key: str | None) -> Tracks:
    """Return the channels of a recording, each judged for itself."""
    tracks = Tracks([])
    for stored in stored_channels(path, key):
        if stored.n_slots:
            try:
                tracks.good.append(_stored_track(stored))
            except LabHubError as error:
                tracks.errors[stored.name] = error
    if unit is not None:
        raise InvalidArgument(f"a recording knows the unit of its times; leave time_unit={unit!r} out")
    return tracks


def _stored_track(stored: StoredChannel) -> Track:
    begins_ns, ends_ns = stored.span_ns

    def blocks() -> Iterator[Block]:
        return (Block(*part) for part in stored.read())

    return Track(stored.name, stored.schema, stored.n_slots, begins_ns, ends_ns, blocks)
