"""Opening a recording: whether it is one, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.storage import LocalStore, WrapperStore

from labhub.datablock.table import layout_of
from labhub.errors import DamagedStore, LabHubError, NotARecording
from labhub.recording.layout import dtype_of, field_of, samples_per_slot, slots_of, slots_per_chunk
from labhub.recording.proof import MANIFEST, ROOT, signed_chunks
from labhub.recording.store import ATTRIBUTE, FORMAT_VERSION
from labhub.schema import TIME, Schema

READ_NBYTES = 8 * 1024 * 1024
"""A recording is read in parts of at most so many bytes, or one chunk."""

Part = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]


def check_ours(store: str | Path) -> Path:
    """Return the path of a recording.

    Raises
    ------
    NotARecording
        There is nothing, something else, or a recording of a later version.
    """
    path = Path(store)
    version = attributes_of(path).get(ATTRIBUTE, {}).get("version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise NotARecording(
            f"{path} is a recording of version {version!r}, this labhub reads versions up to {FORMAT_VERSION}; "
            "update labhub",
            path=str(path),
        )
    if not (path / MANIFEST).exists():
        raise NotARecording(f"{path} has lost its {MANIFEST}; xarray.open_zarr may still read it", path=str(path))
    return path


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of a recording's root.

    Raises
    ------
    NotARecording
        There is nothing, or something else.
    """
    try:
        attributes = json.loads((path / ROOT).read_bytes())["attributes"]
        if ATTRIBUTE in attributes:
            return dict(attributes)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    what = "is no recording of labhub" if path.exists() else "does not exist"
    raise NotARecording(f"{path} {what}", path=str(path))


class _Proving(WrapperStore[LocalStore]):
    """Passes on what a local store holds, and compares each chunk with the manifest."""

    hashes: dict[str, set[str]]

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await self._store.get(key, prototype, byte_range)
        if key.rpartition("/")[2] == ROOT:
            return value
        if value is None or blake3.blake3(value.to_bytes()).hexdigest() not in self.hashes.get(key, ()):
            what = "is missing" if value is None else "was changed after it had been recorded"
            path = str(self._store.root)
            raise DamagedStore(f"{path}: the chunk {key} {what}; labhub verify tells all that is damaged", path=path)
        return value


@dataclass(frozen=True, eq=False)
class StoredChannel:
    """One channel of a recording.

    Attributes
    ----------
    name : str
    schema : Schema
    n_slots : int
        How many are stored.
    """

    name: str
    schema: Schema
    n_slots: int
    _group: zarr.Group

    @property
    def span_ns(self) -> tuple[int, int]:
        """Time of the first and of the last slot (in nanoseconds since the epoch, UTC)."""
        times = self._array("time")
        return int(times[0]), int(times[self.n_slots - 1])

    def read(self) -> Iterator[Part]:
        """Read its slots from the beginning, part by part; each chunk is proven as it is read.

        Yields
        ------
        data : ndarray of shape (n_slots, *slot_shape)
        timestamp_ns : ndarray of shape (n_slots,)
        nbytes : ndarray of shape (n_slots,)

        Raises
        ------
        DamagedStore
            A chunk is not what was recorded.
        """
        chunk = slots_per_chunk(self.schema)
        step = max(1, READ_NBYTES // max(1, self.schema.slot_nbytes) // chunk) * chunk
        row, arrays = 0, self._fields()
        dtypes = {path: dtype for path, array in arrays.items() if (dtype := dtype_of(array.attrs)) is not None}
        for begin in range(0, self.n_slots, step):
            slots = slice(begin, min(begin + step, self.n_slots))
            nbytes = np.asarray(self._array("nbytes")[slots])
            n_rows = rows_in(self.schema, nbytes)
            columns = {path: np.asarray(array[row : row + n_rows]) for path, array in arrays.items()}
            row += n_rows
            yield slots_of(columns, dtypes, self.schema, nbytes), np.asarray(self._array("time")[slots]), nbytes

    def _array(self, name: str) -> Any:
        """An array with one element per slot."""
        return self._group[f"slot_{name}" if TIME in self.schema.dims else name]

    def _fields(self) -> dict[tuple[str, ...], zarr.Array[Any]]:
        """The arrays that hold fields, by the paths of these."""
        arrays = dict(self._group.arrays())
        named: dict[str, list[str]] = {}
        for name, array in arrays.items():
            if (field := field_of(name, array.attrs)) is not None:
                named.setdefault(field, []).append(name)
        found = {}
        for column in layout_of(self.schema).columns:
            names = named.get(column.field, [])
            # Two fields may have one dotted name, as a nested p.x and p.x; then the table's names tell them apart.
            name = column.name if len(names) > 1 else next(iter(names), column.name)
            if name not in arrays:
                raise KeyError(f"the field {column.field!r} of {self.name!r} is not in the store")
            found[column.leaf.path] = arrays[name]
        return found


def stored_channels(store: str | Path) -> list[StoredChannel]:
    """Return what a recording holds, in the order of the names.

    Raises
    ------
    NotARecording
        There is no recording at that path.
    DamagedStore
        It cannot be read.
    """
    path = check_ours(store)
    try:
        proving = _Proving(LocalStore(path, read_only=True))
        proving.hashes = signed_chunks(path)
        root = zarr.open_group(proving, mode="r", zarr_format=3, use_consolidated=True)
        return [_stored(name, group) for name, group in sorted(root.groups())]
    except DamagedStore:
        raise
    except (ValueError, KeyError, TypeError, LabHubError) as error:
        raise DamagedStore(f"{path} cannot be read: {error}", path=str(path)) from error


def _stored(name: str, group: zarr.Group) -> StoredChannel:
    schema = Schema.from_json(str(group.attrs["labhub_schema"]))
    counted = "slot_seq" if TIME in schema.dims else "seq"
    n_slots = group[counted].shape[0] if counted in group else 0  # type: ignore[union-attr]
    return StoredChannel(name, schema, n_slots, group)


def rows_in(schema: Schema, nbytes: NDArray[np.uint64]) -> int:
    """Return how many rows along ``time`` slots of these lengths have given; see `Batch.to_xarray`."""
    samples = samples_per_slot(schema)
    if TIME not in schema.dims or schema.dims[0] != TIME:
        return samples * len(nbytes)
    per_sample = schema.slot_nbytes // samples
    return int(np.minimum(nbytes // np.uint64(per_sample), samples).sum())
