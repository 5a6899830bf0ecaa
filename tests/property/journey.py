"""The way of a measurement: channel, batch, xarray, pandas, Arrow, Parquet, Zarr store, and back again by replays.

Each step gives exactly what was measured, or refuses it with an error of labhub's where `odd` says why it may.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr
from hypothesis import event

import labhub
from labhub.datablock.batch import Batch
from labhub.errors import LabHubError
from labhub.hub import Hub
from tests.property.comparing import (
    FIELD,
    fits,
    rows_of,
    same_slots,
    same_times,
    same_values,
    unit_of,
    word,
)
from tests.property.measurements import Field, Measurement, fields_of

NUMBERS = itertools.count()
SECONDS = 20.0


class Refused(Exception):
    """A step was refused with an error of labhub's, and may be."""


@contextlib.contextmanager
def refusable(m: Measurement, step: str) -> Iterator[None]:
    """Run a step that may be refused if the measurement is odd there; everything else fails the test."""
    try:
        yield
    except LabHubError as error:
        if reason := odd(m, step):
            event(f"{step} refused: {reason}")
            raise Refused(step) from error
        raise AssertionError(f"{step} refused what is not odd: {type(error).__name__}: {error}") from error


def odd(m: Measurement, step: str) -> str:
    """Why a step may refuse a measurement; empty if it may not."""
    parts = list(fields_of(m.dtype))
    for part in parts:
        values = part.of(m.data)
        if part.dtype.kind in "mM":
            if np.datetime_data(part.dtype)[0] == "generic":
                return "durations without a unit"
            # In months, or finer than ns, they are integers with a note; else they must fit one unit that others have.
            if np.datetime_data(part.dtype)[0] not in ("ps", "fs", "as") and not _months(part) and not _fit(values):
                return "dates beyond 64 bits of seconds"
        if part.dtype.char in "gG" and step != "to_xarray":
            return "128 bits"
        if step in ("to_arrow", "to_pandas") and part.dtype.kind == "c":
            return "complex numbers"
    if "replay of the dataset" in step and len({_axes(m, part) for part in parts}) > 1:
        return "different axes"
    return ""


def _months(part: Field) -> bool:
    return part.dtype.kind == "m" and np.datetime_data(part.dtype)[0] in "YM"


def _fit(values: Any) -> bool:
    unit, _ = np.datetime_data(values.dtype)
    return fits(values, (unit,) if unit in ("s", "ms", "us", "ns") else ("s",))


def _axes(m: Measurement, part: Field) -> tuple[int, ...]:
    return part.shape


def travel(hub: Hub, m: Measurement, folder: Path) -> None:
    """Take a measurement all the way."""
    with watched_threads():
        channel = f"m{next(NUMBERS)}"
        try:
            batch = record_live(hub, m, channel, folder / "run.zarr")
        except Refused:
            return
        for step in (through_xarray, through_pandas, through_arrow):
            with contextlib.suppress(Refused):
                step(hub, m, batch, channel, folder)
        if (folder / "run.zarr").exists():
            with contextlib.suppress(Refused):
                through_store(hub, m, batch, channel, folder / "run.zarr")


@contextlib.contextmanager
def watched_threads() -> Iterator[None]:
    """Fail if a thread ends with an error that nobody has caught."""
    died: list[str] = []
    before = threading.excepthook
    threading.excepthook = lambda args: died.append(f"{args.thread}: {args.exc_type.__name__}: {args.exc_value}")
    try:
        yield
    finally:
        threading.excepthook = before
    assert not died, died


def record_live(hub: Hub, m: Measurement, channel: str, store: Path) -> Batch:
    """Write the slots, read them while they are live, and record them."""
    n = len(m.data)
    options: dict[str, Any] = {"dims": m.dims, "units": m.units, "sample_rate": m.rate, "attrs": m.notes}
    with hub.producer(channel, dtype=m.dtype, shape=m.shape, capacity=max(8, 2 * n), **options) as p:
        with hub.consumer(channel, mode="lossless") as c, contextlib.ExitStack() as stack:
            recording = None
            with contextlib.suppress(Refused), refusable(m, "record"):
                recording = hub.record(channel, store=store, follow=False)
                stack.callback(stop, m, recording)
            write(p, m)
            batch = next(iter(c.batches(min_slots=n, max_slots=n, timeout=SECONDS)))
            p.close()
            if recording is not None:
                assert recording.wait(SECONDS), "the recording has not ended"
    wanted = m.data.astype(batch.schema.dtype) if batch.schema.dtype != m.dtype else m.data
    check_batch(m, batch, wanted)
    return batch


def stop(m: Measurement, recording: Any) -> None:
    """End a recording; values that a store cannot hold may have ended it, and it says so."""
    with contextlib.suppress(Refused), refusable(m, "recording"):
        assert recording.stop().stored == len(m.data)


def write(p: Any, m: Measurement) -> None:
    match m.way:
        case "write_many":
            assert p.write_many(m.data) == len(m.data)
        case "write":
            for slot in m.data:
                p.write(slot)
        case _:
            for k, (slot, time_ns) in enumerate(zip(m.data, m.times, strict=True)):
                with p.slot() as s:
                    s.array[...] = slot
                    s.timestamp_ns = time_ns
                    if m.cut and k == len(m.data) - 1:
                        s.nbytes = p.schema.slot_nbytes // m.shape[0] * (m.shape[0] - m.cut)


def check_batch(m: Measurement, batch: Batch, wanted: Any) -> None:
    if m.cut:
        wanted = wanted.copy()
        wanted[-1, m.shape[0] - m.cut :] = np.zeros((), wanted.dtype)
    same_slots(batch.data, wanted, "batch")
    if m.way == "slot":
        assert batch.timestamp_ns.tolist() == list(m.times)
    else:
        object.__setattr__(m, "times", tuple(batch.timestamp_ns.tolist()))  # those of the calls
    assert (batch.schema.dims, dict(batch.schema.units), dict(batch.schema.attrs)) == (m.dims, m.units, m.notes)


def check_dataset(m: Measurement, ds: xr.Dataset, names: dict[Field, str], channel: str, what: str) -> None:
    """Compare a dataset along time with the rows of a measurement."""
    rows, times, slots = rows_of(m)
    same_times(ds["time"].values, times, what)
    assert ds["seq"].values.tolist() == slots, f"{what}: seq {ds['seq'].values.tolist()}"
    rest = tuple(d for d in m.dims if d != "time")
    for part, name in names.items():
        assert name in ds.data_vars, f"{what}: {name!r} of {part.path} is not there, only {list(ds.data_vars)}"
        variable = ds[name].transpose("time", ...)
        same_values(variable.values, part.of(rows), f"{what}: {name}", variable.attrs)
        for wanted, shown in zip(rest, variable.dims[1:], strict=False):
            assert str(shown).rstrip("_") == wanted.rstrip("_"), f"{what}: {name} has the dims {variable.dims}"
        unit = unit_of(m, part)
        assert word(variable.attrs) == unit, f"{what}: unit of {name} is {word(variable.attrs)!r}, not {unit!r}"
        if what != "to_xarray":
            dotted = ".".join(part.path) or "value"
            assert variable.attrs.get(FIELD, name) == dotted, f"{what}: {dotted!r} is called {name!r}"
    check_notes(m, ds.attrs, channel, what)


def check_notes(m: Measurement, attrs: dict[str, Any], channel: str, what: str) -> None:
    """Every note of the user's is there, under its name or, where that has a meaning, under one with underscores."""
    assert attrs["channel"] == channel, f"{what}: channel is {attrs['channel']!r}"
    for key, value in m.notes.items():
        found = [attrs[k] for k in (key, f"{key}_", f"{key}__", f"{key}___") if k in attrs]
        plain = json.loads(json.dumps(value))
        assert any(json.loads(json.dumps(f, default=str)) == plain for f in found), f"{what}: note {key!r}: {found}"


def names_in(m: Measurement, ds: xr.Dataset) -> dict[Field, str]:
    """Which variable is which field: they are in the same order."""
    parts, names = list(fields_of(m.dtype)), [str(name) for name in ds.data_vars]
    assert len(parts) == len(names), f"{len(parts)} fields are {names}"
    return dict(zip(parts, names, strict=True))


def through_xarray(hub: Hub, m: Measurement, batch: Batch, channel: str, folder: Path) -> None:
    with refusable(m, "to_xarray"):
        ds = batch.to_xarray()
    names = names_in(m, ds)
    check_dataset(m, ds, names, channel, "to_xarray")
    replay_dataset(hub, m, ds, names, "replay of the dataset")
    if len(batch) > 1 and all(part.dtype.kind in "biuf" for part in names):
        appended(m, batch, folder / "own.zarr")


def appended(m: Measurement, batch: Batch, store: Path) -> None:
    """A store of the user's own, to which datasets are appended one after the other."""
    first, rest = batch.split(1)
    keep = ["time", "seq"]
    first.to_xarray()[keep].to_zarr(store, zarr_format=3, consolidated=False)
    rest.to_xarray()[keep].to_zarr(store, append_dim="time", zarr_format=3, consolidated=False)
    same_times(xr.open_zarr(store, chunks=None, consolidated=False)["time"].values, rows_of(m)[1], "appended")


def through_pandas(hub: Hub, m: Measurement, batch: Batch, channel: str, folder: Path) -> None:
    with refusable(m, "to_pandas"):
        frame = batch.to_pandas()
    rows, times, _ = rows_of(m)
    parts = list(fields_of(m.dtype))
    if rows.ndim > 1 or any(part.shape for part in parts):
        return  # each element is a row then
    same_times(frame.index.to_numpy(), times, "to_pandas")
    names = names_in(m, batch.to_xarray())
    for part, name in names.items():
        column = frame[name].to_numpy()
        if part.dtype.kind in "SV":
            column = np.array(column.tolist(), part.dtype)
        same_values(column, part.of(rows), f"to_pandas: {name}", batch.to_xarray()[name].attrs)


def through_arrow(hub: Hub, m: Measurement, batch: Batch, channel: str, folder: Path) -> None:
    with refusable(m, "to_arrow"):
        table = batch.to_arrow()
    rows, times, slots = rows_of(m)
    parts = list(fields_of(m.dtype))
    assert table.num_columns == len(set(table.column_names)) == 2 + len(parts), table.column_names
    same_times(table["time"].to_numpy(), times, "to_arrow")
    assert table["seq"].to_pylist() == slots
    for k, part in enumerate(parts):
        described = table.schema.field(k + 2)
        attrs = {key.decode(): value.decode() for key, value in (described.metadata or {}).items()}
        same_values(_numpy(table.column(k + 2), part), part.of(rows), f"to_arrow: {described.name}", attrs)
        assert word(attrs) == unit_of(m, part), f"to_arrow: the unit of {described.name} is {word(attrs)!r}"
    path = folder / "run.parquet"
    try:
        pq.write_table(table, path)
    except pa.ArrowException as error:
        event(f"Parquet refused: {error}"[:60])
        return
    with refusable(m, "replay of Parquet"):
        found = replayed(hub, path, len(rows), f"{channel}.parquet", len(m.data))
    check_replay(m, found, "replay of Parquet")
    assert json.loads(found.schema.to_json())["dtype"] == json.loads(batch.schema.to_json())["dtype"]


def _numpy(column: pa.ChunkedArray, part: Field) -> Any:
    """An Arrow column as numpy has it; lists of fixed size are axes."""
    array, shape = column.combine_chunks(), [len(column)]
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    kind = array.type
    if pa.types.is_date32(kind):
        days = array.cast(pa.int32()).cast(pa.int64()).fill_null(np.iinfo("i8").min)
        return days.to_numpy().view("M8[D]").reshape(shape)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        numbers = array.cast(pa.int64()).fill_null(np.iinfo("i8").min).to_numpy()
        return numbers.view(f"{part.dtype.kind}8[{kind.unit}]").reshape(shape)
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return np.array(array.to_pylist(), part.dtype).reshape(shape)
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)


def through_store(hub: Hub, m: Measurement, batch: Batch, channel: str, store: Path) -> None:
    """What xarray alone reads from a recording, and what a replay makes of it."""
    opened = xr.open_zarr(store, group=channel, chunks=None).load()
    names = names_in(m, batch.to_xarray()) if not odd(m, "to_xarray") else {}
    check_dataset(m, opened, names, channel, "open_zarr")
    assert labhub.recording.verify(store).complete
    assert xr.open_datatree(store, engine="zarr", chunks=None).children.keys() == {channel}
    found = replayed(hub, store, len(m.data), f"again.{channel}", prefix="again.")
    same_slots(found.data, batch.data, "replay of the store")
    assert found.timestamp_ns.tolist() == list(m.times)
    assert found.nbytes.tolist() == batch.nbytes.tolist()
    assert found.schema.dtype == batch.schema.dtype
    check_replay(m, found, "replay of the store")
    if names:
        keep = [name for name in opened.data_vars if str(name) in names.values()]
        replay_dataset(hub, m, opened[keep], names, "replay of the dataset from the store")


def replay_dataset(hub: Hub, m: Measurement, ds: xr.Dataset, names: dict[Field, str], what: str) -> None:
    rows, times, _ = rows_of(m)
    with refusable(m, what):
        found = replayed(hub, ds, len(rows), f"d{next(NUMBERS)}", len(m.data))
    data, time_ns = found.along_time()
    order = np.argsort(np.array([round(t) for t in times], np.int64), kind="stable")
    again = np.argsort(time_ns, kind="stable")
    same_times(time_ns[again], [times[k] for k in order], what)
    parts = list(fields_of(data.dtype))
    assert len(parts) == len(names), f"{what}: {len(parts)} fields of {list(names.values())}"
    for (part, name), made in zip(names.items(), parts, strict=True):
        by_name = {p.path: p for p in parts} if len(parts) > 1 else {part.path: made}
        ways = (part.path, (name,), (".".join(part.path),))
        mine = next((by_name[path] for path in ways if path in by_name), None)
        assert mine is not None, f"{what}: {name!r} is not there, only {list(by_name)}"
        same_values(mine.of(data)[again], part.of(rows)[order], f"{what}: {name}", dict(ds[name].attrs))


def check_replay(m: Measurement, found: Batch, what: str) -> None:
    """Compare what a replay plays with the measurement: rows in the order of time, units, notes."""
    rows, times, _ = rows_of(m)
    data, time_ns = found.along_time()
    order = np.argsort(np.array([round(t) for t in times], np.int64), kind="stable")
    again = np.argsort(time_ns, kind="stable")
    same_times(time_ns[again], [times[k] for k in order], what)
    wanted, made = list(fields_of(m.dtype)), list(fields_of(data.dtype))
    assert [part.path for part in wanted] == [part.path for part in made], f"{what}: {data.dtype}"
    for part, other in zip(wanted, made, strict=True):
        same_values(other.of(data)[again], part.of(rows)[order], f"{what}: {part.path}")
    units = [{k: u for k, u in given.items() if u} for given in (found.schema.units, m.units)]  # "" says nothing
    assert units[0] == units[1], f"{what}: {found.schema.units}"
    kept = {key: value for key, value in found.schema.attrs.items() if not key.startswith("replay_")}
    assert kept == m.notes, f"{what}: {kept}"


def replayed(hub: Hub, source: Any, n: int, channel: str, *other: int, prefix: str | None = None) -> Batch:
    """Replay a source as fast as its reader, and read it to the end."""
    options: dict[str, Any] = {"name": channel} if prefix is None else {"prefix": prefix}
    player = labhub.replay(source, hub=hub, speed=None, **options)
    try:  # from here on nothing may be refused any more
        with player, hub.consumer(channel, mode="lossless", start="oldest") as c:
            parts = list(c.batches(timeout=SECONDS))
            assert player.wait(SECONDS), f"the replay of {channel} has not ended"
            status = player.status
    except LabHubError as error:
        raise AssertionError(f"a replay ended with {type(error).__name__}: {error}") from error
    assert (status.state, status.error) == ("ended", "")
    data = np.zeros((sum(map(len, parts)), *parts[0].data.shape[1:]), parts[0].data.dtype)
    for part, end in zip(parts, np.cumsum([len(b) for b in parts]), strict=True):
        data[end - len(part) : end] = part.data
    headers = np.concatenate([b.headers for b in parts])
    assert len(data) == status.total == status.n_slots
    assert len(data) in (n, *other), f"{len(data)} slots instead of {n}"
    return Batch(channel, parts[0].schema, data, headers)
