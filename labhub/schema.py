"""What one slot of a channel looks like: dtype, shape, dims, units, time base.

A schema travels as canonical JSON (sorted keys, no blanks). The layout hash is the BLAKE3 of the part of it that says
where each byte is, so that two processes can agree on the bytes without agreeing on units or notes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import blake3
import numpy as np

from labhub.arguments import (
    ATTRS,
    DIMS,
    LARGEST,
    SHAPE,
    checked_length,
    checked_mapping,
    checked_several,
    checked_text,
    hinted,
    unit_texts,
)
from labhub.arrays import example
from labhub.errors import InvalidArgument, SchemaMismatch
from labhub.tables import html_facts
from labhub.words import quoted

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

UNDECLARED_HASH = bytes(32)
"""Hash of a schema that nobody declared: 32 zero bytes, compared with nothing."""

VALUE = "value"
"""Name of the only field of a plain dtype."""

TIME = "time"
"""Name of the dimension along which the samples of one slot follow each other."""


@dataclass(frozen=True)
class Schema:
    """Layout and meaning of one slot.

    Parameters
    ----------
    dtype : dtype
        Plain or structured, without Python objects.
    shape : tuple of int
        Shape of one slot; ``()`` for a single record.
    dims : tuple of str
        A name for each axis of `shape`. An axis called ``"time"`` holds samples that follow each other.
    units : mapping of str to str
        Unit of each field; a plain dtype has the one field ``"value"``. A dotted name gives that of a nested field
        (``"p.x"``), which otherwise has the unit of the field that it lies in (``"p"``).
    sample_rate : float, optional
        Samples per second along the ``"time"`` dimension of a slot.
    attrs : mapping of str to JSON value
        Free notes.

    Raises
    ------
    InvalidArgument
        If a dtype holds Python objects or nothing at all, or dims, units, rate and attributes do not fit it.

    Examples
    --------
    >>> Schema(np.dtype("f4"), (64, 8), ("time", "channel"), {"value": "V"}, sample_rate=10_000)
    Schema(float32, shape=(64, 8), dims=('time', 'channel'), units={'value': 'V'}, sample_rate=10000)
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    sample_rate: float | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # frozen for everybody else
        dtype = _decode_dtype(_encode_dtype(_checked_dtype(self.dtype)))  # as it travels: without titles and metadata
        shape = tuple(checked_length(n) for n in checked_several("shape", self.shape, SHAPE))
        if dtype.subdtype is not None:  # a subarray dtype is the same bytes as more axes
            dtype, inner = dtype.subdtype
            shape += inner
        set_(self, "dtype", dtype)
        set_(self, "shape", shape)
        if self.slot_nbytes > LARGEST:
            raise InvalidArgument(f"a slot of shape {shape} has {self.slot_nbytes} bytes, more than there can be")
        set_(self, "dims", _checked_dims(checked_several("dims", self.dims, DIMS), shape))
        set_(self, "units", _checked_units(self.units, dtype))
        set_(self, "sample_rate", _checked_rate(self.sample_rate, self.dims, shape))
        attrs = checked_mapping("attrs", self.attrs, ATTRS)
        if odd := [key for key in attrs if not isinstance(key, str)]:
            raise InvalidArgument(f"attrs have names that are text, not {quoted(odd[0])}")
        try:
            set_(self, "attrs", dict(sorted(attrs.items())))
            self.to_json().encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"names, units and attrs must be text that UTF-8 can hold: {error}") from None
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"attrs must be plain JSON values (text, finite numbers, lists): {error}") from None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields; ``("value",)`` for a plain dtype."""
        return self.dtype.names or (VALUE,)

    @property
    def slot_nbytes(self) -> int:
        """Bytes of one slot."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def duration_ns(self) -> int:
        """Time that the samples of one slot take (in nanoseconds); 0 without a ``"time"`` axis."""
        if self.sample_rate is None:
            return 0
        return round(1e9 * self.shape[self.dims.index(TIME)] / self.sample_rate)

    @property
    def layout_hash(self) -> bytes:
        """BLAKE3 (32 bytes) of the canonical JSON of dtype and shape; units, dims and notes do not change it."""
        return blake3.blake3(_canonical(self._layout()).encode()).digest()

    def unit_of(self, leaf: Leaf) -> str:
        """Return the unit of a plain field: its own, or that of the innermost field around it; empty if unknown."""
        names = [".".join(leaf.path[:k]) for k in range(len(leaf.path), 1, -1)]
        own = [name for name in names if name not in self.fields]  # that name is another field's, with a dot in it
        return next((self.units[n] for n in (*own, leaf.path[0] if leaf.path else VALUE) if n in self.units), "")

    def _layout(self) -> dict[str, Any]:
        return {"dtype": _encode_dtype(self.dtype), "shape": list(self.shape)}

    def to_json(self) -> str:
        """Return the schema as canonical JSON."""
        document = self._layout()
        optional = {
            "dims": list(self.dims),
            "units": dict(self.units),
            "sample_rate": self.sample_rate,
            "attrs": dict(self.attrs),
        }
        document |= {key: value for key, value in optional.items() if value not in (None, [], {})}
        return _canonical(document)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """Read a schema from its JSON.

        Raises
        ------
        InvalidArgument
            If the text is not the JSON of a schema.
        """
        checked_text("text", text)
        try:
            document = json.loads(text)
            return cls(
                dtype=_decode_dtype(document["dtype"]),
                shape=tuple(document["shape"]),
                dims=tuple(document.get("dims", ())),
                units=document.get("units", {}),
                sample_rate=document.get("sample_rate"),
                attrs=document.get("attrs", {}),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SyntaxError) as error:
            raise InvalidArgument(f"this is not the JSON of a schema ({error}): {text[:200]!r}") from None

    @classmethod
    def raw(cls, nbytes: int) -> Schema:
        """Return the schema of uninterpreted slots of `nbytes` bytes: ``bytes[nbytes]``."""
        return cls(np.dtype(np.uint8), (checked_length(nbytes),), ("byte",))

    @classmethod
    def infer(
        cls,
        like: ArrayLike | Mapping[str, Any] | None = None,
        *,
        dtype: DTypeLike | None = None,
        shape: int | Sequence[int] | None = None,
        dims: str | Sequence[str] | None = None,
        units: str | Mapping[str, str] | None = None,
        sample_rate: float | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> Schema:
        """Work out the schema of one slot from an example of it, or from a dtype and shape.

        Parameters
        ----------
        like : array_like, scalar or dict
            An example of one slot. A dict becomes a structured dtype with one field for each key.
        dtype : dtype_like, optional
            Overrides the dtype of `like`; needed if there is no `like`.
        shape : int or sequence of int, optional
            Shape of one slot; that of `like`, or ``()``.
        dims : str or sequence of str, optional
            Names of the axes.
        units : str or mapping of str to str, optional
            One unit for every field, or one for each.
        sample_rate : float, optional
            Samples per second along the ``"time"`` axis of a slot.
        attrs : mapping, optional
            Free notes.

        Raises
        ------
        InvalidArgument
            If neither `like` nor `dtype` says what a slot is, or what they say cannot be a slot.
        SchemaMismatch
            If an element of `like` is masked.

        Examples
        --------
        >>> Schema.infer({"pressure": 0.0, "on": False}, units={"pressure": "mbar"})
        Schema(['pressure', 'on'], units={'pressure': 'mbar'})
        >>> Schema.infer(np.zeros((512, 512), "u2"), dims=("y", "x")).slot_nbytes
        524288
        """
        if like is None and dtype is None:
            raise InvalidArgument("a schema needs an example (like=...) or a dtype; give one of them")
        found = None if like is None else example(like)
        try:
            chosen = np.dtype(dtype) if dtype is not None else found.dtype  # type: ignore[union-attr]
        except (TypeError, ValueError, KeyError, SyntaxError, OverflowError) as error:
            raise InvalidArgument(f"dtype={quoted(dtype)} is not a numpy dtype: {error}") from None
        hints = hinted(shape, dims, units, attrs)
        if shape is None and found is not None:
            hints["shape"] = found.shape
        chosen = _checked_dtype(chosen)
        if isinstance(units, str):
            hints["units"] = dict.fromkeys(chosen.names or (VALUE,), units)
        return cls(dtype=chosen, sample_rate=sample_rate, **hints)

    def difference(self, other: Schema) -> tuple[str, ...]:
        """Compare the layouts; one line for each thing in which `other` differs, none if the bytes agree.

        Examples
        --------
        >>> Schema.infer(0.0).difference(Schema.infer([0, 0], dtype="i4"))
        ('shape: () here, (2,) there', "field 'value': <f8 here, <i4 there")
        """
        lines = []
        if self.shape != other.shape:
            lines.append(f"shape: {self.shape} here, {other.shape} there")
        mine, theirs = _places(self.dtype), _places(other.dtype)
        for name in [*mine, *(n for n in theirs if n not in mine)]:
            here, there = mine.get(name, "missing"), theirs.get(name, "missing")
            if here != there:
                lines.append(f"field {name!r}: {here} here, {there} there")
        if not lines and self.dtype.itemsize != other.dtype.itemsize:
            lines.append(f"record size: {self.dtype.itemsize} bytes here, {other.dtype.itemsize} there")
        return tuple(lines)

    def require(self, other: Schema, what: str) -> None:
        """Raise unless `other` has the same layout.

        Raises
        ------
        SchemaMismatch
            With one line for each difference.
        """
        if lines := self.difference(other):
            raise SchemaMismatch(f"{what} has another schema:\n  " + "\n  ".join(lines), difference=lines)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def facts(self) -> list[tuple[str, str]]:
        """Return names and values, for people: the slot, its dims and rate, each field with its unit, the notes."""
        kind = "record" if self.dtype.names else str(self.dtype)
        facts = [("slot", kind + (str(list(self.shape)) if self.shape else ""))]
        if self.dims:
            facts.append(("dims", ", ".join(self.dims)))
        if self.sample_rate:
            facts.append(("sample rate", f"{self.sample_rate:g} per second"))
        if self.dtype.names is None:
            facts += [("units", unit) for unit in self.units.values()]
        else:
            facts += [(f"field {f}", f"{self.dtype[f]} {self.units.get(f, '')}".strip()) for f in self.dtype.names]
            facts += [(f"units of {f}", unit) for f, unit in self.units.items() if f not in self.dtype.names]
        return facts + [(name, str(value)) for name, value in self.attrs.items()]

    def _repr_html_(self) -> str:
        return html_facts("schema", self.facts())

    def __repr__(self) -> str:
        parts = [str(self.dtype) if self.dtype.names is None else f"{list(self.dtype.names)}"]
        if self.shape:
            parts.append(f"shape={self.shape}")
        if self.dims:
            parts.append(f"dims={self.dims}")
        if self.units:
            parts.append(f"units={dict(self.units)}")
        if self.sample_rate:
            parts.append(f"sample_rate={self.sample_rate:g}")
        return f"Schema({', '.join(parts)})"


@dataclass(frozen=True)
class Leaf:
    """A plain field of a slot, at any depth of a nested dtype.

    Attributes
    ----------
    path : tuple of str
        The names that lead to it; ``()`` for a plain dtype.
    dtype : dtype
        Of one of its elements.
    shape : tuple of int
        Its own axes, with those of the records that it lies in; behind those of the slot.
    """

    path: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its dotted name; ``"value"`` for a plain dtype."""
        return ".".join(self.path) or VALUE


def leaves(dtype: np.dtype[Any], path: tuple[str, ...] = (), shape: tuple[int, ...] = ()) -> Iterator[Leaf]:
    """Yield the plain fields of a dtype, in their order."""
    base, shape = dtype.base, shape + dtype.shape
    if base.names is None:
        yield Leaf(path, base, shape)
    for name in base.names or ():
        yield from leaves(base[name], (*path, name), shape)


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _checked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype):
        raise InvalidArgument(f"dtype is a numpy dtype, as np.dtype('f8'), not {quoted(dtype)}")
    for leaf in leaves(dtype):
        if leaf.dtype.hasobject or leaf.dtype.kind == "T":
            raise InvalidArgument(
                f"field {leaf.name!r} holds Python objects, which no other process can read; use a fixed-size dtype"
            )
    if dtype.itemsize == 0:
        raise InvalidArgument(f"dtype {dtype} has no bytes; for text give a length, as in 'U16'")
    return dtype


def _checked_dims(dims: Sequence[str], shape: tuple[int, ...]) -> tuple[str, ...]:
    dims = tuple(dims)
    if not dims:
        return ()
    if len(dims) != len(shape) or len(set(dims)) != len(dims) or not all(isinstance(d, str) and d for d in dims):
        raise InvalidArgument(f"dims {dims} must give each axis of a slot of shape {shape} a name of its own")
    return dims


def _checked_units(units: Mapping[str, str], dtype: np.dtype[Any]) -> dict[str, str]:
    fields = dtype.names or (VALUE,)
    named = unit_texts(units)
    nested = {".".join(leaf.path[:k]) for leaf in leaves(dtype) for k in range(2, len(leaf.path) + 1)} if named else ()
    for name in named:
        if name not in fields and name not in nested:
            raise InvalidArgument(f"units name the field {name!r}; the fields are {', '.join(fields)}")
    return dict(units)


def _checked_rate(rate: float | None, dims: tuple[str, ...], shape: tuple[int, ...]) -> float | None:
    if rate is None:
        if TIME in dims:
            raise InvalidArgument("a slot with a 'time' axis needs a sample_rate, in samples per second")
        return None
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 < rate < 1e300:
        raise InvalidArgument(f"sample_rate is a positive number of samples per second, not {rate!r}")
    if TIME not in dims:
        raise InvalidArgument(f"sample_rate belongs to slots with a 'time' axis; name one in dims, which are {dims}")
    if not 1e9 * shape[dims.index(TIME)] / float(rate) < 1 << 63:
        raise InvalidArgument(f"at sample_rate={rate!r} a slot lasts longer than times reach, which is 292 years")
    return float(rate)


def _encode_dtype(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _encode_dtype(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields = dtype.fields
    assert fields is not None  # a dtype with names has fields
    return {
        "fields": [[name, _encode_dtype(fields[name][0]), fields[name][1]] for name in dtype.names],
        "itemsize": dtype.itemsize,
    }


def _decode_dtype(document: Any) -> np.dtype[Any]:
    if isinstance(document, str):
        return np.dtype(document)
    if "base" in document:
        return np.dtype((_decode_dtype(document["base"]), tuple(document["shape"])))
    names, formats, offsets = zip(*document["fields"], strict=True)
    return np.dtype(
        {
            "names": list(names),
            "formats": [_decode_dtype(f) for f in formats],
            "offsets": list(offsets),
            "itemsize": document["itemsize"],
        }
    )


def _places(dtype: np.dtype[Any]) -> dict[str, str]:
    """Describe each field: its dtype and where it begins."""
    if dtype.names is None:
        return {VALUE: f"{dtype.str}"}
    fields = dtype.fields
    assert fields is not None  # a dtype with names has fields
    return {name: f"{_word(fields[name][0])} at byte {fields[name][1]}" for name in dtype.names}


def _word(dtype: np.dtype[Any]) -> str:
    return dtype.str if dtype.names is None and dtype.subdtype is None else str(dtype)
