"""Tables as tracks: Parquet files, pandas frames and Arrow tables; one slot for each row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument, MissingDependency, NotARecording
from labhub.replaying.columns import Column, Found, LeftOut, array_of, from_objects, text_array, with_missing
from labhub.replaying.times import TimeUnit, Where, in_unit, times_ns
from labhub.replaying.tracks import Track, track_of
from labhub.schema import TIME

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NO_TIME = "a table needs a column or an index called 'time': dates, or seconds; rename yours to that"


def frame_track(frame: pd.DataFrame, name: str, unit: TimeUnit | None, where: Where | None = None) -> Track:
    """Make a track of a pandas frame."""
    import pandas as pd

    names = [field_name(c) for c in frame.columns]
    check_names(names)
    frame = frame.set_axis(names, axis=1)
    if isinstance(frame.index, pd.MultiIndex):
        return _product_track(frame, name, unit)
    where = where or _row_of(frame.index)
    times, columns = _times_of(frame)
    time_ns = times_ns(times, where, unit)
    found = Found()
    note_attrs(found, frame.attrs)
    units = _units(frame.attrs)
    for column, series in columns.items():
        try:
            values = array_of_series(series, column, where, found.words)
            found.columns.append(Column.of(column, values, unit=units.get(column, "")))
        except LeftOut as reason:
            found.words.append(f"column {column!r} is left out: {reason}")
    return track_of(name, found, time_ns)


def check_names(names: list[str]) -> None:
    """Raise `InvalidArgument` if two columns have the same name."""
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InvalidArgument(f"the column {twice!r} is there more than once; give each a name of its own")


def note_attrs(found: Found, attrs: Any) -> None:
    """Keep the notes of a source, without what labhub has written there itself."""
    own = ("channel", "labhub_schema", *(["units"] if isinstance(attrs.get("units"), dict) else []))
    found.note({k: v for k, v in attrs.items() if k not in own})


def _units(attrs: Any) -> dict[str, str]:
    units = attrs.get("units", {})
    return {str(k): str(v) for k, v in units.items()} if isinstance(units, dict) else {}


def field_name(name: object) -> str:
    """Return the name of a column as that of a field; a number is its digits."""
    if isinstance(name, bool) or not isinstance(name, str | int | np.integer) or name == "":
        raise InvalidArgument(f"{name!r} cannot name a field; give each column a name of its own, which is text")
    return str(name)


def _row_of(index: pd.Index[Any]) -> Where:
    """Return what names a row: by its number, and by its label where that is another one."""
    import pandas as pd

    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    return lambda k: f"row {k}" if plain else f"row {k} (counted from 0, index {index[k]!r})"


def _times_of(frame: pd.DataFrame) -> tuple[Any, dict[str, pd.Series[Any]]]:
    """Return the times of a frame, and its other columns; an index that has a name is one of them."""
    import pandas as pd

    index, timed = frame.index, (pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex)
    columns = {str(column): frame[column] for column in frame.columns}
    if TIME in columns:
        times = columns.pop(TIME)
        if index.name == TIME and not index.equals(pd.Index(times)):
            raise InvalidArgument("both the index and a column are called 'time', and they differ; rename one of them")
        if index.name not in (None, TIME, *frame.columns):  # it says something of each row
            columns = {field_name(index.name): pd.Series(index), **columns}
        return times, columns
    if index.name == TIME or isinstance(index, timed):
        return index, columns
    raise InvalidArgument(NO_TIME)


def _product_track(frame: pd.DataFrame, name: str, unit: TimeUnit | None) -> Track:
    """Make a track of a frame whose index has a level ``time`` and one for each axis of a slot (`Batch.to_pandas`)."""
    index = cast("pd.MultiIndex", frame.index)
    if index.names[0] != TIME or len(set(index.names)) < len(index.names) or None in index.names:
        levels = list(index.names)
        raise InvalidArgument(f"the levels of the index are {levels}; the first must be 'time', and each have a name")
    if not len(index):
        raise InvalidArgument(f"there is nothing to replay on {name!r}: no rows")
    sizes = [len(index.levels[k].take(np.unique(index.codes[k]))) for k in range(1, index.nlevels)]
    per_row = int(np.prod(sizes))
    n = len(frame) // max(1, per_row)
    grid = np.indices(sizes).reshape(len(sizes), -1)
    times = index.get_level_values(0)[:: max(1, per_row)]
    whole = n * per_row == len(frame) and all(
        (_ranks(index.codes[k + 1]).reshape(n, per_row) == grid[k]).all() for k in range(len(sizes))
    )
    if not whole or (index.codes[0].reshape(n, per_row) != index.codes[0][::per_row, None]).any():
        raise InvalidArgument("the index is no full grid of times and axes; give ds = frame.to_xarray() instead")
    where: Where = lambda k: f"row {k * per_row} (counted from 0)"  # noqa: E731
    found = Found()
    note_attrs(found, frame.attrs)
    for column in frame.columns:
        try:
            flat = array_of_series(frame[column], column, lambda k: where(k // per_row), found.words)
            values = flat.reshape(n, *sizes)
            found.columns.append(Column.of(column, values, tuple(map(str, index.names[1:])), ""))
        except LeftOut as reason:
            found.words.append(f"column {column!r} is left out: {reason}")
    return track_of(name, found, times_ns(times, where, unit))


def _ranks(codes: NDArray[Any]) -> NDArray[Any]:
    """Number codes by the order in which they come first."""
    codes = np.asarray(codes)
    seen, first = np.unique(codes, return_index=True)
    rank = np.empty(int(seen.max()) + 1 if len(seen) else 0, np.int64)
    rank[seen[np.argsort(first)]] = np.arange(len(seen))
    return np.asarray(rank[codes])


def array_of_series(series: pd.Series[Any], name: str, where: Where, words: list[str]) -> NDArray[Any]:
    """Return a column of a frame as an array of a dtype that slots can have.

    Raises
    ------
    InvalidArgument, LeftOut
    """
    import pandas as pd

    kind = series.dtype
    if isinstance(kind, pd.SparseDtype):
        return array_of_series(pd.Series(np.asarray(series)), name, where, words)
    if isinstance(kind, pd.ArrowDtype):
        from labhub.replaying.arrow import array_of_arrow, arrow_of

        return array_of_arrow(arrow_of(series), name, where, words)
    if isinstance(kind, pd.CategoricalDtype):
        categories = kind.categories
        if not series.isna().any():
            return array_of_series(series.astype(categories.dtype), name, where, words)
        items = [None if pd.isna(item) else item for item in series.astype(object)]
        return from_objects(items, name, where, words)
    if isinstance(kind, pd.DatetimeTZDtype):
        words.append(f"column {name!r} is in UTC now: a slot has no place for the time zone {kind.tz}")
        return np.asarray(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    if isinstance(kind, pd.PeriodDtype | pd.IntervalDtype):
        raise LeftOut(f"a slot has no place for {kind}")
    if isinstance(kind, pd.StringDtype):
        missing = series.isna().to_numpy()
        if missing.any():
            raise LeftOut(f"a value is missing ({where(int(np.argmax(missing)))}); fill it to keep the column")
        return text_array(series.tolist(), name)
    if isinstance(kind, np.dtype):
        values = series.to_numpy()
        return from_objects(list(values), name, where, words) if kind.hasobject else array_of(values, name, where)
    if (numpy_dtype := getattr(kind, "numpy_dtype", None)) is not None:  # Int64, Float64, boolean
        missing = series.isna().to_numpy()
        filled = series.to_numpy(numpy_dtype, na_value=numpy_dtype.type(0))
        return with_missing(filled, missing, name, where, words)
    return from_objects(series.astype(object).tolist(), name, where, words)


def parquet_table(path: Path) -> pa.Table:
    """Read a Parquet file.

    Raises
    ------
    NotARecording, MissingDependency
    """
    if not path.exists():
        raise NotARecording(f"{path} does not exist", path=str(path))
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependency("Parquet needs pyarrow: pip install 'labhub[arrow]'", package="pyarrow") from None
    try:
        return pq.read_table(path)
    except (ValueError, UnicodeError, OSError) as error:
        raise NotARecording(f"{path} cannot be read as a table: {error}", path=str(path)) from None


def arrow_track(table: pa.Table, name: str, unit: TimeUnit | None) -> Track:
    """Make a track of an Arrow table; one that `Batch.to_arrow` made gives the channel that it was made of."""
    from labhub.replaying.restored import restored_table

    check_names(table.column_names)
    found = Found()
    if unit is None and (track := restored_table(table, name, found.words)) is not None:
        return track
    times, time_column = _arrow_times(table)
    where: Where = lambda k: f"row {k}"  # noqa: E731
    if unit is None and time_column and times.dtype.kind in "iuf":
        times, unit = in_unit(times, _unit_beside(table.schema.field(time_column)))
    time_ns = times_ns(times, where, unit)
    attrs = _frame_attrs(table)
    units = _units(attrs)
    note_attrs(found, attrs)
    skipped = {time_column, *_own_columns(table)}
    for k, column in enumerate(table.column_names):
        if column not in skipped:
            _keep(found, table.schema.field(k), table.column(k), where, units.get(column, ""))
    return track_of(name, found, time_ns)


def _own_columns(table: pa.Table) -> set[str]:
    """Return the columns that are no data: a plain row number of pandas, and the seq of a table of ours."""
    ours = {"seq"} if b"labhub_schema" in (table.schema.metadata or {}) else set()
    return ours | {c for c in table.column_names if c.startswith("__index_level_")}


def _keep(found: Found, field: pa.Field, column: pa.ChunkedArray, where: Where, unit: str) -> None:
    from labhub.replaying.arrow import array_of_arrow

    name = field_name(field.name)
    unit = _unit_beside(field) or unit
    try:
        found.columns.append(Column.of(name, array_of_arrow(column, name, where, found.words), unit=unit))
    except LeftOut as reason:
        found.words.append(f"column {name!r} is left out: {reason}")
    zone = getattr(field.type, "tz", None)
    if zone not in (None, "UTC"):
        found.words.append(f"column {name!r} is in UTC now: a slot has no place for the time zone {zone}")


def _unit_beside(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"units", b"").decode(errors="replace"))


def _arrow_times(table: pa.Table) -> tuple[Any, str]:
    """Return the times of a table, and the column that they are; pandas may have stored its index as one."""
    from labhub.replaying.arrow import plain_times

    names = table.column_names
    stored = [c for c in names if c.startswith("__index_level_")]
    if TIME in names:
        chosen = TIME
    elif stored and _is_time(table.schema.field(stored[0]).type):
        chosen = stored[0]
    else:
        index = (table.schema.pandas_metadata or {}).get("index_columns", [])
        if index and isinstance(index[0], dict) and index[0].get("name") == TIME:  # a range, which has no column
            return np.arange(index[0]["start"], index[0]["stop"], index[0]["step"]), ""
        raise InvalidArgument(f"{NO_TIME}. There are: {', '.join(map(repr, names[:8]))}")
    return plain_times(table.column(chosen), lambda k: f"row {k}"), chosen


def _is_time(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(kind) or pa.types.is_duration(kind))


def _frame_attrs(table: pa.Table) -> dict[str, Any]:
    """Return the notes that pandas stores of a frame."""
    try:
        stored = json.loads((table.schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}"))
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}
