"""Whether what a library shows is the value that was measured, compared bit by bit with numpy."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.property.measurements import Field, Measurement, fields_of

NAT = np.iinfo(np.int64).min
ATTOSECONDS = {
    "W": 604_800 * 10**18,
    "D": 86_400 * 10**18,
    "h": 3600 * 10**18,
    "m": 60 * 10**18,
    "s": 10**18,
    "ms": 10**15,
    "us": 10**12,
    "ns": 10**9,
    "ps": 10**6,
    "fs": 1000,
    "as": 1,
}
DTYPE, FIELD, UNITS = "labhub_dtype", "labhub_field", "labhub_units"
FINE = ("s", "ms", "us", "ns")


def rows_of(m: Measurement) -> tuple[NDArray[Any], list[Fraction], list[int]]:
    """What must be along ``time``: rows, the exact time of each (in nanoseconds), and the slot that each is from."""
    n = len(m.data)
    if "time" not in m.dims:
        return m.data, [Fraction(t) for t in m.times], list(range(n))
    assert m.rate is not None
    axis = m.dims.index("time")
    samples = m.shape[axis]
    valid = [samples - (m.cut if k == n - 1 else 0) for k in range(n)]
    blocks = np.moveaxis(m.data, axis + 1, 1)
    rows = np.concatenate([block[:v] for block, v in zip(blocks, valid, strict=True)])
    times = [t - (v - 1 - k) * 10**9 / Fraction(m.rate) for t, v in zip(m.times, valid, strict=True) for k in range(v)]
    return rows, times, [k for k, v in enumerate(valid) for _ in range(v)]


def same_times(found: Any, wanted: list[Fraction], what: str) -> None:
    """Compare times: to the nanosecond, or to the next one where a rate has no whole nanoseconds."""
    got = np.asarray(found).astype("M8[ns]").astype(np.int64).tolist()
    assert len(got) == len(wanted), f"{what}: {len(got)} times instead of {len(wanted)}"
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert abs(a - b) <= (0 if b.denominator == 1 and abs(b) < 2**53 else 1), f"{what}: time {k} is {a}, not {b}"


def same_values(found: NDArray[Any], wanted: NDArray[Any], what: str, attrs: dict[str, Any] | None = None) -> None:
    """Compare a column that a library shows with numpy's: kind, width, shape, bits; only the byte order may differ."""
    found = np.asarray(found)
    if attrs and DTYPE in attrs and found.dtype.kind not in "mM":
        assert found.dtype == np.int64, f"{what}: {found.dtype} stands for {attrs[DTYPE]}"
        found = found.view(np.dtype(attrs[DTYPE]))
    kind = wanted.dtype.kind
    if kind in "SV" and found.dtype == np.uint8 and found.shape == (*wanted.shape, wanted.dtype.itemsize):
        found = np.frombuffer(found.tobytes(), wanted.dtype).reshape(wanted.shape)
    if kind in "SU" and found.dtype.kind in "OTU":
        found = np.array(found.tolist(), dtype=object)
        assert found.shape == wanted.shape, f"{what}: shape {found.shape} instead of {wanted.shape}"
        assert found.ravel().tolist() == wanted.ravel().tolist(), (
            f"{what}: {found.tolist()} instead of {wanted.tolist()}"
        )
        return
    assert found.shape == wanted.shape, f"{what}: shape {found.shape} instead of {wanted.shape}"
    assert found.dtype.kind == kind, f"{what}: {found.dtype} instead of {wanted.dtype}"
    if kind in "mM":
        assert instants(found) == instants(wanted), f"{what}: {found.tolist()} instead of {wanted.tolist()}"
        return
    assert found.dtype.newbyteorder("=") == wanted.dtype.newbyteorder("="), f"{what}: {found.dtype}, not {wanted.dtype}"
    assert bits(found) == bits(wanted), f"{what}: {found.tolist()} instead of {wanted.tolist()}"


def bits(values: NDArray[Any]) -> bytes:
    """The bits of an array in the machine's byte order: NaN, and the sign of zero, count."""
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if native.dtype.char in "gG":  # 80 bits of 128
        return native.view(np.uint8).reshape(-1, 16)[:, :10].tobytes()
    return native.tobytes()


def same_slots(found: NDArray[Any], wanted: NDArray[Any], what: str) -> None:
    """Compare whole slots: the very dtype, and the bits of each field; what is between fields does not count."""
    assert found.dtype == wanted.dtype, f"{what}: {found.dtype} instead of {wanted.dtype}"
    assert found.shape == wanted.shape, f"{what}: shape {found.shape} instead of {wanted.shape}"
    for part in fields_of(wanted.dtype):
        a, b = part.of(found), part.of(wanted)
        assert bits(a) == bits(b), f"{what}, field {part.path}: {a.tolist()} instead of {b.tolist()}"


def instants(values: NDArray[Any]) -> list[tuple[str, int] | None]:
    """Dates and durations as whole numbers of attoseconds, or of months where these have no length; None is NaT."""
    unit, count = np.datetime_data(values.dtype)
    numbers = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).view(np.int64).ravel().tolist()
    return [None if k == NAT else _instant(k * count, unit, values.dtype.kind) for k in numbers]


def _instant(number: int, unit: str, kind: str) -> tuple[str, int]:
    if unit in ATTOSECONDS:
        return "as", number * ATTOSECONDS[unit]
    if unit == "generic":
        return "generic", number
    months = number * (12 if unit == "Y" else 1)
    if kind == "m":
        return "months", months
    return "as", _days(1970 + months // 12, months % 12 + 1) * ATTOSECONDS["D"]


def _days(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of a month, in the proleptic Gregorian calendar."""
    year, month = (year - 1, month + 9) if month < 3 else (year, month - 3)
    era, of_era = divmod(year, 400)
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + (153 * month + 2) // 5 - 719_468


def fits(values: NDArray[Any], units: tuple[str, ...] = FINE) -> bool:
    """Whether one of the units that other libraries know holds all of these dates or durations, in 64 bits."""
    found = [k for k in instants(values) if k is not None]
    if any(kind != "as" for kind, _ in found):
        return False
    return any(all(k % (per := ATTOSECONDS[u]) == 0 and -(2**63) < k // per < 2**63 for _, k in found) for u in units)


def unit_of(m: Measurement, part: Field) -> str:
    """The user's word for the unit of a field."""
    return m.units.get(part.path[0] if part.path else "value", "")


def word(attrs: dict[str, Any]) -> str:
    """The word for the unit that a reader finds in the attributes of a column."""
    return str(attrs.get(UNITS, attrs.get("units", "")))
