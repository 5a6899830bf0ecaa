"""What is written is what is read, whatever it came in; what a slot cannot hold is refused, and nothing is written."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, example, given

from labhub.errors import LabHubError
from labhub.hub import Hub
from tests.property.comparing import bits, instants
from tests.property.profile import quick

DTYPES = (
    *("?", "i1", "u1", "<i4", ">i4", "u4", "i8", "u8", "f2", "<f4", ">f4", "f8", "c8", "c16", "S1", "S4"),
    *("<U1", "<U4", ">U4", "M8[s]", ">M8[ns]", "M8[D]", "m8[ms]", "m8[ns]"),
)
NUMBERS = itertools.count()


def scalars() -> st.SearchStrategy[Any]:
    """Single values of Python and numpy."""
    times = st.builds(
        lambda kind, unit, k: np.array(k).astype(f"{kind}8[{unit}]")[()],
        st.sampled_from("Mm"),
        st.sampled_from(("Y", "D", "h", "s", "ms", "us", "ns", "ps")),
        st.one_of(st.integers(-3000, 3000), st.integers(-(2**62), 2**62)),
    ).filter(lambda t: not (t.dtype.kind == "m" and np.datetime_data(t.dtype)[0] == "Y"))
    numbers = st.one_of(st.integers(-300, 300), st.integers(-(2**70), 2**70), st.floats(), st.booleans())
    narrow = st.builds(
        lambda code, x: np.dtype(code).type(x),
        st.sampled_from(("i1", "u2", "i8", "f2", "f4", "f8")),
        st.integers(0, 99),
    )
    text = st.one_of(st.text("aé€\0", max_size=5), st.binary(max_size=5), st.binary(max_size=4).map(np.bytes_))
    other = st.sampled_from([None, 1 + 2j, complex("inf"), decimal.Decimal("1.1"), datetime.date(2026, 1, 1), object()])
    return st.one_of(numbers, numbers, narrow, text, times, other)


def wrapped(value: Any) -> st.SearchStrategy[Any]:
    """The same value twice, in what people put values in: the slot has the shape (2,) then."""
    array = np.array([value, value])
    views = [array, [value, value], (value, value), np.repeat(array, 2)[::2], np.ma.masked_array(array)]
    if array.dtype.kind in "iuf" and array.dtype.char != "b":  # of that, a memoryview is plain bytes
        views += [memoryview(array), memoryview(np.repeat(array, 2))[::2], array.astype(array.dtype.newbyteorder())]
        views += [np.ma.masked_array(array, mask=[False, True])]
    return st.integers(0, len(views) - 1).map(views.__getitem__)  # a memoryview has no hash, which sampled_from takes


@st.composite
def writes(draw: st.DrawFn) -> tuple[str, Any, Any]:
    """A dtype, a value, and how it is handed over: alone, or twice in something."""
    dtype, value = draw(st.sampled_from(DTYPES)), draw(scalars())
    if value is None or type(value) is object or draw(st.booleans()):
        return dtype, value, None
    return dtype, value, draw(wrapped(value))


def holds(dtype: np.dtype[Any], value: Any) -> bool | None:
    """Whether a dtype certainly holds a value, certainly does not, or it is a matter of taste (None)."""
    plain = value.item() if isinstance(value, np.generic) and value.dtype.kind in "iufb" else value
    match dtype.kind:
        case "i" | "u" if type(plain) is int:
            return bool(np.iinfo(dtype).min <= plain <= np.iinfo(dtype).max)
        case "i" | "u" if type(plain) is float:
            return None if plain.is_integer() else False
        case "f" if type(plain) is float:
            return not math.isfinite(plain) or abs(plain) <= float(np.finfo(dtype).max)
        case "S" | "U" if value == "" or (isinstance(value, str | bytes) and value[-1:] in (b"\0", "\0")):
            return None  # numpy takes the zeros at the end of a text for none
        case "S" if isinstance(value, bytes):
            return len(value) <= dtype.itemsize
        case "U" if isinstance(value, str):
            return len(value) <= dtype.itemsize // 4
        case "M" | "m" if isinstance(value, np.generic) and value.dtype.kind == dtype.kind:
            unit, same = np.datetime_data(dtype)[0], np.datetime_data(value.dtype)[0]
            return True if unit == same else None
        case "b" if type(plain) is bool:
            return True
    return None


def same(found: Any, value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether an element is the value: numbers may be rounded to a float's digits, nothing else."""
    match dtype.kind:
        case "M" | "m":
            if isinstance(value, int | np.bool_) or (isinstance(value, np.generic) and value.dtype.kind in "iu"):
                return int(found.astype("i8")[0]) == int(value)  # so many of the channel's unit
            as_time = np.asarray(value) if isinstance(value, np.generic) else np.asarray(value, f"{dtype.kind}8[us]")
            return instants(found) == instants(np.atleast_1d(as_time))
        case "S":
            raw = value.encode("latin1", "replace") if isinstance(value, str) else bytes(value)
            return found.tobytes() == raw.ljust(dtype.itemsize, b"\0")
        case "U":
            return str(found[0]).ljust(5, "\0") == str(value).ljust(5, "\0")
        case "f" | "c":
            exact = np.asarray([value], dtype.newbyteorder("=")) if not isinstance(value, decimal.Decimal) else value
            if isinstance(value, float | np.floating) and math.isfinite(value) and not np.isfinite(found[0]):
                return False
            return bits(found) == bits(exact) or complex(found[0]) == complex(value)
    return bool(found[0] == value) and not (dtype.kind == "b" and not isinstance(value, bool | np.bool_))


@quick
@example(w=("<f4", 1e300, None))
@example(w=("<f4", math.inf, None))
@example(w=("<f4", 1, memoryview(np.array([1, 1], "i4"))))
@example(w=("<f4", 1, memoryview(np.array([1, 1, 1, 1], "i4"))[::2]))
@example(w=("f8", 1.0, np.ma.masked_array([1.0, 1.0], mask=[False, True])))
@example(w=("S4", b"ab", None))
@example(w=("S4", b"ab", [b"ab", b"ab"]))
@example(w=(">U4", "éa", ["éa", "éa"]))
@example(w=("M8[D]", np.datetime64(-1, "ps"), None))
@example(w=("S4", np.bytes_(b""), [b"", b""]))
@example(w=("M8[ns]", np.datetime64("3000-01-01", "s"), None))
@example(w=("M8[s]", np.datetime64("2026-01-01T00:00:00.5", "ms"), None))
@given(w=writes())
def test_a_value_is_written_as_it_is_or_refused(hub: Hub, w: tuple[str, Any, Any]) -> None:
    code, value, container = w
    assume(not isinstance(value, bytes) or np.dtype(code).kind == "S")  # elsewhere, bytes are the memory of a slot
    dtype, shape = np.dtype(code), () if container is None else (2,)
    masked = isinstance(container, np.ma.MaskedArray) and bool(np.ma.getmaskarray(container).any())
    with np.errstate(all="ignore"), hub.producer(f"w{next(NUMBERS)}", dtype=dtype, shape=shape, capacity=8) as p:
        before, refused = p.next_seq, None
        try:
            p.write(value if container is None else container)
        except LabHubError as error:
            refused = error
        if refused is not None:
            assert holds(dtype, value) is not True or masked, f"{value!r} was refused by {dtype}: {refused}"
            assert p.next_seq == before
            return
        assert not masked, "the mask is lost"
        assert holds(dtype, value) is not False, f"{value!r} went into {dtype}"
        found = hub.consumer(p.channel, start="oldest").snapshot(last=1).data[:1]
        for k in range(found.size):
            element = np.reshape(found, -1)[k : k + 1]  # an array: a single text loses its zeros
            assert same(element, value, dtype), f"{value!r} became {element!r} in {dtype}"


LAYOUTS = [
    np.dtype([("a", "u1"), ("b", "<f8")]),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    np.dtype([("a", ">u2"), ("b", ">f8")]),
    np.dtype([("b", "f4"), ("a", "i4")]),
    np.dtype({"names": ["a", "b"], "formats": ["u2", "f8"], "offsets": [9, 1], "itemsize": 16}),
]


@pytest.mark.parametrize("there", LAYOUTS)
@pytest.mark.parametrize("here", LAYOUTS)
def test_records_of_any_layout(hub: Hub, here: np.dtype[Any], there: np.dtype[Any]) -> None:
    rows = [(1, 2.5), (3, 4.5)]
    named = [dict(zip("ab", row, strict=True)) for row in rows]
    with hub.producer(f"w{next(NUMBERS)}", dtype=there, shape=(2,)) as p:
        p.write(named)
        p.write_many([named])
        if [str(here[n].newbyteorder("=")) for n in "ab"] == [str(there[n].newbyteorder("=")) for n in "ab"]:
            records = np.zeros(2, here)
            records["a"], records["b"] = zip(*rows, strict=True)
            p.write(records)
            p.write_many(records[None])
        found = hub.consumer(p.channel, start="oldest").snapshot(last=p.next_seq).data
        for slot in found:
            assert (slot["a"].tolist(), slot["b"].tolist()) == ([1, 3], [2.5, 4.5])
