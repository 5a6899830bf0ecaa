"""Opening a recording: whether it is one, and what is in it."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from labhub.datablock.table import layout_of
from labhub.errors import DamagedStore, LabHubError, NotARecording
from labhub.recording.inside import LARGEST_JSON, parsed, read_inside
from labhub.recording.layout import dtype_of, field_of, samples_per_slot, slots_of, slots_per_chunk
from labhub.recording.manifest import MANIFEST, ROOT, Account
from labhub.recording.proof import check_key, proven, signed_account
from labhub.recording.store import ATTRIBUTE, FORMAT_VERSION
from labhub.schema import TIME, Schema

READ_NBYTES = 8 * 1024 * 1024
"""A recording is read in parts of at most so many bytes, or one chunk."""

LARGEST_CHUNK = 256 * 1024 * 1024
"""Most bytes of a chunk in memory, unless a single slot has more."""
CODECS = {"bytes", "vlen-utf8", "zstd", "transpose", "crc32c", "gzip", "blosc"}
"""What a chunk may be packed with: each gives back what a chunk is, and runs nothing."""
WRONG = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, LabHubError),
)
"""What metadata that nobody meant can raise."""

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
    if not os.path.lexists(path / MANIFEST):
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
        attributes = parsed(read_inside(path, ROOT, LARGEST_JSON))["attributes"]
        if isinstance(attributes[ATTRIBUTE], dict):
            return dict(attributes)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    what = "is no recording of labhub" if path.exists() else "does not exist"
    raise NotARecording(f"{path} {what}", path=str(path))


class _Proving(WrapperStore[LocalStore]):
    """Reads files of a store that are in its manifest and unchanged, and no others."""

    path: Path
    account: Account
    root: bytes

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if byte_range is not None:
            raise DamagedStore(f"{self.path}: {key} is read in parts, which no recording needs", path=str(self.path))
        data = self.root if key == ROOT else await asyncio.to_thread(self._proven, key)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def exists(self, key: str) -> bool:
        return key == ROOT or key in self.account.files

    def _proven(self, key: str) -> bytes:
        try:
            return proven(self.path, key, self.account.files.get(key, {}))
        except FileNotFoundError:
            what = "is missing"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        except ValueError as error:
            what = str(error)
        message = f"{self.path}: the chunk {key} {what}; labhub verify tells all that is damaged"
        raise DamagedStore(message, path=str(self.path))


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
    _path: Path

    @property
    def span_ns(self) -> tuple[int, int]:
        """Time of the first and of the last slot (in nanoseconds since the epoch, UTC)."""
        with damage_told(self._path):
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
        with damage_told(self._path):
            yield from self._read()

    def _read(self) -> Iterator[Part]:
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
        return self._checked(self._group[f"slot_{name}" if TIME in self.schema.dims else name])

    def _checked(self, array: Any) -> Any:
        """An array whose chunks fit into memory, and are packed with nothing unknown."""
        nbytes = math.prod(array.chunks) * array.dtype.itemsize
        if nbytes > max(LARGEST_CHUNK, self.schema.slot_nbytes):
            raise ValueError(f"a chunk of {array.path!r} would take {nbytes} bytes")
        if unknown := {str(codec.to_dict()["name"]) for codec in array.metadata.codecs} - CODECS:
            raise ValueError(f"{array.path!r} is packed with {', '.join(sorted(unknown))}, which no recording is")
        return array

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
            found[column.leaf.path] = self._checked(arrays[name])
        return found


def stored_channels(store: str | Path, key: str | None = None) -> list[StoredChannel]:
    """Return what a recording holds, in the order of the names.

    Parameters
    ----------
    store : path
    key : str, optional
        Who must have signed it (Ed25519, hex), or ``"any"``; this user unless given.

    Raises
    ------
    NotARecording
        There is no recording at that path.
    UntrustedSigner
        It is signed by somebody else.
    DamagedStore
        It cannot be read.
    """
    wanted = check_key(key)
    path = check_ours(store)
    with damage_told(path):
        proving = _Proving(LocalStore(path, read_only=True))
        proving.path = path
        proving.account, proving.root = signed_account(path, wanted)
        root = zarr.open_group(proving, mode="r", zarr_format=3, use_consolidated=True)
        return [_stored(name, group, path) for name, group in sorted(root.groups())]


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Make whatever a recording of a stranger's can raise a `DamagedStore`."""
    try:
        yield
    except (DamagedStore, NotARecording):
        raise
    except WRONG as error:
        raise DamagedStore(f"{path} cannot be read: {str(error) or type(error).__name__}", path=str(path)) from error


def _stored(name: str, group: zarr.Group, path: Path) -> StoredChannel:
    schema = Schema.from_json(str(group.attrs["labhub_schema"]))
    counted = "slot_seq" if TIME in schema.dims else "seq"
    n_slots = group[counted].shape[0] if counted in group else 0  # type: ignore[union-attr]
    return StoredChannel(name, schema, n_slots, group, path)


def rows_in(schema: Schema, nbytes: NDArray[np.uint64]) -> int:
    """Return how many rows along ``time`` slots of these lengths have given; see `Batch.to_xarray`."""
    samples = samples_per_slot(schema)
    if TIME not in schema.dims or schema.dims[0] != TIME:
        return samples * len(nbytes)
    per_sample = schema.slot_nbytes // samples
    return int(np.minimum(nbytes // np.uint64(per_sample), samples).sum())
