"""What somebody may measure: strategies for a dtype with its names, a shape with its dims, units, notes and values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray

RESERVED = ("time", "seq", "nbytes", "epoch", "slot", "gap", "slot_seq", "slot_nbytes", "gap_time", "gap_x", "value")
NAMES = (
    *("v", "x", "x_0", "x_1", "x_byte", "x_", "pos", "pos_0", "pos_0_", "p", "p.x", "p.x_0", "a.b", "a.b.c", "dim_0"),
    *("a/b", "a\\b", "a_b", ".", "..", ".x", "__x", "zarr.json", "field_zarr.json", "c", "field_..", "manifest.jsonl"),
    *("Temp (°C)", "µ", "Ω", "\u1e9b\u0323", "[mm]", "[/x]", "%", "a b", " ", "$x", "index", "name", "dtype", "titles"),
    *("labhub_field", "labhub_schema", "units", "coordinates", "channel", "lost", "level_0", "0", "x" * 120),
)
UNITS = (
    *("V", "mm", "", "%", "1", "$", "US$", "a$b$c", "[mm]", "[/x]", "°C", "µm", "m/s^2", " ", "\x1b[31m", "none"),
    *("counts since reset", "seconds since trigger", "m since 2020-01-01", "days since 2020-01-01", "since", "Since"),
    *("seconds since 1970-01-01", "hours SINCE 2020-01-01T00:00:00", "months since start", "seconds", "second", "s"),
    *("sec", "secs", "ms", "msec", "milliseconds", "millisecond", "us", "microseconds", "ns", "nanoseconds", "days"),
    *("day", "d", "h", "hours", "hr", "min", "minutes", "weeks", "months", "years", "D", "m", "Y"),
)
NOTES = (
    *("coordinates", "labhub_schema", "channel", "Conventions", "lossless", "lossless_", "channel_", "complete"),
    *("units", "calendar", "_FillValue", "scale_factor", "add_offset", "dtype", "grid_mapping", "bounds", "markers"),
    *("producer_pid", "recording_error", "clock_epochs", "lost", "_ARRAY_DIMENSIONS", "title", "site", "", "µ"),
)
CODES = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
TIME_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "10ms", "25s", "7D")
EDGES = (0, 1, -1, 2, 10**9, 1_767_225_600, 253_402_214_400, -(2**63), -(2**63) + 1, 2**63 - 1, 2**53 + 1)
RATES = (1000.0, 48_000.0, 0.5, 3.0, 7.0)


@dataclass(frozen=True)
class Measurement:
    """Some slots, and what is said about them.

    Attributes
    ----------
    dtype, shape, dims, units, rate, notes
        As `Hub.producer` takes them.
    data : ndarray of shape (n_slots, *shape)
    times : tuple of int
        Timestamp of each slot (in nanoseconds since the epoch).
    way : {"slot", "write", "write_many"}
        How they are written; only the first has times of its own.
    cut : int
        By how many samples the last slot is shorter, if the ``time`` axis comes first.
    """

    dtype: np.dtype[Any]
    data: NDArray[Any]
    times: tuple[int, ...]
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    units: dict[str, str] = field(default_factory=dict)
    rate: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    way: str = "slot"
    cut: int = 0


@dataclass(frozen=True)
class Field:
    """A plain field: its path, its dtype, and the axes that it has by itself."""

    path: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def of(self, rows: NDArray[Any]) -> NDArray[Any]:
        for name in self.path:
            rows = rows[name]
        return rows


def fields_of(dtype: np.dtype[Any], path: tuple[str, ...] = (), shape: tuple[int, ...] = ()) -> Iterator[Field]:
    """Walk through a dtype; arrays of records have the axes of both."""
    base, shape = dtype.base, shape + dtype.shape
    if base.names is None:
        yield Field(path, base, shape)
        return
    for name in base.names:
        yield from fields_of(base[name], (*path, name), shape)


def plain_dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    """Every kind that numpy has without Python objects, in both byte orders."""
    order = st.sampled_from("<>")
    numbers = st.builds("{}{}".format, order, st.sampled_from(CODES))
    common = st.sampled_from(("<f8", "<f4", "<i4", "<u2", "|b1", "<u8"))
    text = st.builds("{}{}{}".format, order, st.sampled_from("SU"), st.integers(1, 5))
    void = st.builds("V{}".format, st.integers(1, 9))
    times = st.builds("{}{}8[{}]".format, order, st.sampled_from("mM"), st.sampled_from(TIME_UNITS))
    odd = st.sampled_from(("<m8", "<f16", ">f16", "<c32"))
    return st.one_of(common, numbers, text, times, common, numbers, text, times, void, odd).map(np.dtype)


def names() -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.one_of(st.sampled_from(NAMES), st.sampled_from(RESERVED), st.text(letters, min_size=1, max_size=6))


@st.composite
def records(draw: st.DrawFn, depth: int = 2) -> np.dtype[Any]:
    """Structured dtypes: nested, with arrays and arrays of records inside, packed, aligned, or with gaps."""
    chosen = draw(st.lists(names(), min_size=1, max_size=4, unique=True))
    inner = st.one_of(plain_dtypes(), plain_dtypes(), records(depth - 1)) if depth > 1 else plain_dtypes()
    formats = [draw(inner) for _ in chosen]
    shapes = [draw(st.sampled_from([(), (), (), (2,), (1,), (2, 3)])) for _ in chosen]
    parts = [np.dtype((f, s)) if s else f for f, s in zip(formats, shapes, strict=True)]
    match draw(st.sampled_from(("packed", "packed", "aligned", "gaps", "backwards"))):
        case "packed":
            return np.dtype(list(zip(chosen, parts, strict=True)))
        case "aligned":
            return np.dtype({"names": chosen, "formats": parts}, align=True)
        case "gaps":
            offsets = [int(k) for k in np.cumsum([3, *(p.itemsize + 3 for p in parts[:-1])])]
        case _:
            offsets = [sum(p.itemsize for p in parts[k + 1 :]) for k in range(len(parts))]
    size = max(o + p.itemsize for o, p in zip(offsets, parts, strict=True)) + 5
    return np.dtype({"names": chosen, "formats": parts, "offsets": offsets, "itemsize": size})


def values(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    """Values of a plain dtype: everyday ones, zeros, NaN, inf, NaT, and the first and last that there are."""
    size = dtype.itemsize
    match dtype.kind:
        case "b":
            return st.booleans()
        case "i" | "u":
            limits = np.iinfo(dtype)
            edges = st.sampled_from([limits.min, limits.max, 0, 1])
            return st.one_of(st.integers(0, 100), edges, st.integers(int(limits.min), int(limits.max)))
        case "f":
            return st.floats(width=min(64, 8 * size))  # type: ignore[arg-type]
        case "c":
            return st.complex_numbers(width=min(128, 8 * size))  # type: ignore[arg-type]
        case "m" | "M":
            return st.one_of(st.integers(-100, 3000), st.sampled_from(EDGES), st.integers(-(2**63), 2**63 - 1))
        case "U":
            letters = st.one_of(st.sampled_from("ab \0"), st.characters(exclude_categories=["Cs"]))
            return st.text(letters, max_size=size // 4)
        case _:
            return st.one_of(st.sampled_from([b"", b"a", b"a\0", b"\0\0a"]), st.binary(max_size=size))


@st.composite
def data_of(draw: st.DrawFn, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    data = np.zeros(shape, dtype)
    for part in fields_of(dtype):
        place = part.of(data)
        count = place.size
        filled = [draw(values(part.dtype)) for _ in range(min(count, 6))]
        filled = (filled * math.ceil(count / len(filled)))[:count]
        place[...] = _array(filled, part.dtype).reshape(place.shape)
    return data


def _array(filled: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    native = dtype.newbyteorder("=")
    if dtype.kind in "mM":
        return np.array(filled, np.int64).view(native)
    if dtype.kind in "SV":
        whole = b"".join(item[: dtype.itemsize].ljust(dtype.itemsize, b"\0") for item in filled)
        return np.frombuffer(whole, dtype)
    with np.errstate(all="ignore"):
        return np.array(filled, native)


@st.composite
def times(draw: st.DrawFn, n: int) -> tuple[int, ...]:
    """Times that rise, fall, are equal, zero, before 1970, not whole seconds, or at the ends of the years there are."""
    usual = st.sampled_from([0, 1, -1, 10**9, 1_767_225_600_000_000_000, 1_767_225_600_123_456_789, -(10**8)])
    first = draw(st.one_of(usual, usual, st.integers(-(2**63) + 10**12, 2**63 - 10**12)))
    steps = st.sampled_from([10**8, 0, -(10**8), 1, -1, 10**9, 500_000_000, 10**11])
    found = [first]
    for _ in range(n - 1):
        found.append(found[-1] + draw(steps))
    return tuple(found)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[str, ...], float | None]:
    """A slot's shape, its dims and its rate."""
    shape = draw(st.sampled_from([(), (), (), (), (1,), (3,), (2, 3), (3, 1, 2)]))
    if not shape or draw(st.booleans()):
        return shape, (), None
    dims = draw(st.lists(names(), min_size=len(shape), max_size=len(shape), unique=True))
    dims = [d if d != "time" else "x" for d in dims]
    if draw(st.booleans()):
        dims[draw(st.integers(0, len(dims) - 1))] = "time"
    dims = [d if d not in dims[:k] else f"d{k}" for k, d in enumerate(dims)]
    return shape, tuple(dims), draw(st.sampled_from(RATES)) if "time" in dims else None


def notes() -> st.SearchStrategy[dict[str, Any]]:
    plain = st.one_of(st.text(max_size=5), st.integers(-9, 9), st.booleans(), st.none(), st.floats(-9, 9))
    found = st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.text(max_size=3), plain, max_size=2))
    return st.dictionaries(st.sampled_from(NOTES), found, max_size=3)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    """All of it together."""
    dtype = draw(st.one_of(plain_dtypes(), records()))
    shape, dims, rate = draw(shapes())
    n = draw(st.integers(1, 4))
    fields = dtype.names or ("value",)
    unit = st.one_of(st.sampled_from(UNITS), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
    units = {name: draw(unit) for name in fields if draw(st.booleans())}
    way = draw(st.sampled_from(("slot", "slot", "slot", "write", "write_many")))
    cut = draw(st.integers(0, shape[0] - 1)) if dims[:1] == ("time",) and way == "slot" else 0
    data = draw(data_of(dtype, (n, *shape)))
    return Measurement(dtype, data, draw(times(n)), shape, dims, units, rate, draw(notes()), way, cut)
