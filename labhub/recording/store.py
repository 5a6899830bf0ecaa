"""A Zarr v3 store that is being written, one commit after the other.

Chunks are written by zarr-python. What of them counts is said by the consolidated metadata in the root's ``zarr.json``,
which is replaced as a whole, by one `rename`: at any moment, a reader and a killed recorder's heir find each channel as
long as it was at the last commit, with all arrays of the same length.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import zarr
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore

from labhub.errors import StoreExists
from labhub.recording.layout import CONVENTIONS, Rows, chunk_rows
from labhub.recording.proof import ROOT, Manifest, signing_key
from labhub.schema import Schema

FORMAT_VERSION = 2
"""Since version 2, dates and durations are in the unit of their dtype; in version 1 they were nanoseconds."""
ATTRIBUTE = "labhub_recording"
"""The attribute of the root by which a store is known as ours; it holds the version and the provenance."""
ENDLESS = 1 << 48
RESERVE = ".reserve"
RESERVE_NBYTES = 256 * 1024
"""Space that is given back when the disk is full, so that the last commit finds room (in bytes)."""


class _Noting(WrapperStore[LocalStore]):
    """Passes on to a local store, and notes each chunk in the manifest before it is written.

    Arrays have no end here: chunks can be written while the store's own metadata, which say how much of them counts,
    wait for the commit.
    """

    manifest: Manifest

    async def set(self, key: str, value: Buffer) -> None:
        self.manifest.chunk(key, value.as_numpy_array())
        try:
            await self._store.set(key, value)
        except BaseException:
            self.manifest.take_back(key)
            raise

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await self._store.get(key, prototype, byte_range)
        if value is None or key.rpartition("/")[2] != ROOT:
            return value
        document = json.loads(value.to_bytes())
        document["shape"][0] = ENDLESS
        return (prototype or default_buffer_prototype()).buffer.from_bytes(_json(document))


@dataclasses.dataclass
class _Column:
    """One array: where its chunks go, how its metadata read, how many rows it has."""

    array: zarr.Array[Any]
    document: dict[str, Any]
    rows: int = 0

    def consolidated(self) -> dict[str, Any]:
        return self.document | {"shape": [self.rows, *self.document["shape"][1:]]}


class RecordingStore:
    """A store under construction; for one thread.

    Parameters
    ----------
    path : Path
        Where; nothing may be there yet.
    attrs : dict
        Provenance, as plain JSON values.
    compression : {"zstd", "none"}

    Raises
    ------
    StoreExists
        Something is there.
    OSError
        It cannot be written.
    """

    def __init__(self, path: Path, attrs: dict[str, Any], compression: Literal["zstd", "none"] = "zstd") -> None:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise StoreExists(
                f"{path} exists; a recording never overwrites: choose another name", path=str(path)
            ) from None
        self.path = path
        self._provenance = {"version": FORMAT_VERSION, **attrs}
        self._clock_at_begin = wall_minus_monotonic_ns()
        self._compressors: Literal["auto"] | None = "auto" if compression == "zstd" else None
        self._chunks = _Noting(LocalStore(path))
        self._chunks.manifest = self._manifest = Manifest(path, signing_key())
        (path / RESERVE).write_bytes(bytes(RESERVE_NBYTES))
        self._groups: dict[str, dict[str, Any]] = {}
        self._columns: dict[str, _Column] = {}
        self.markers: list[dict[str, Any]] = []

    @property
    def in_place(self) -> bool:
        """Whether it is still at its path: not if it was removed, moved or replaced meanwhile."""
        return self._manifest.in_place

    @property
    def nbytes(self) -> int:
        """Size of its chunks so far (in bytes)."""
        return self._manifest.nbytes

    def add_group(self, channel: str, attrs: dict[str, Any]) -> None:
        """Make the group of a channel."""
        document = {"zarr_format": 3, "node_type": "group", "attributes": {"Conventions": CONVENTIONS, **attrs}}
        text = _json(document)
        (self.path / channel).mkdir()
        _write(self.path / channel / ROOT, text)
        self._groups[channel] = document

    def describe(self, channel: str, **attrs: Any) -> None:
        """Add attributes to the group of a channel; they count with the next `commit`."""
        self._groups[channel]["attributes"] |= attrs

    def give_up(self, channel: str, error: str) -> None:
        """Write no more of a channel, and say why in its group. Arrays that hold nothing yet are forgotten."""
        for path in [p for p, column in self._columns.items() if p.rpartition("/")[0] == channel and not column.rows]:
            del self._columns[path]
        if channel in self._groups:
            self.describe(channel, recording_error=error)

    def append(self, channel: str, schema: Schema, rows: Iterable[Rows]) -> None:
        """Write new rows; they count with the next `commit`."""
        self._check_in_place()
        grown: list[tuple[_Column, int]] = []
        for new in rows:
            path = f"{channel}/{new.name}"
            if path not in self._columns:
                self._columns[path] = self._column(path, new, chunk_rows(new, schema))
            column, end = self._columns[path], self._columns[path].rows + len(new.values)
            column.array[column.rows : end] = new.values
            if new.plain_attrs is not None:
                column.document["attributes"] = new.plain_attrs
            grown.append((column, end))
        for column, end in grown:  # all of them or, if the disk became full meanwhile, none
            column.rows = end

    def commit(self, *, final: bool = False) -> None:
        """Make everything count that was appended; with `final`, as a recording that is complete."""
        self._check_in_place()
        root = _json(self._root(final))
        self._manifest.commit(root, **({"final": True} if final else {}))
        _write(self.path / ROOT, root)

    def close(self) -> None:
        """Commit for the last time, as complete, and write each node's own metadata for readers that want them."""
        self.give_reserve()
        for channel, document in self._groups.items():
            _write(self.path / channel / ROOT, _json(document))
        for path, column in self._columns.items():
            _write(self.path / path / ROOT, _json(column.consolidated()))
        self.commit(final=True)
        self._manifest.close()

    def abandon(self) -> None:
        """Leave it as it was at the last commit."""
        self._manifest.close()

    def give_reserve(self) -> None:
        """Give the reserved space back to the disk. Twice is harmless."""
        (self.path / RESERVE).unlink(missing_ok=True)

    def _check_in_place(self) -> None:
        if not self.in_place:
            raise FileNotFoundError(errno.ENOENT, "the store was removed, moved or replaced", str(self.path))

    def _root(self, final: bool) -> dict[str, Any]:
        clock = {"wall_minus_monotonic_ns": [self._clock_at_begin, wall_minus_monotonic_ns()]}
        attributes = {ATTRIBUTE: self._provenance | clock, "complete": final, "markers": self.markers}
        nodes = self._groups | {path: column.consolidated() for path, column in self._columns.items()}
        consolidated = {"kind": "inline", "must_understand": False, "metadata": nodes}
        return {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": attributes,
            "consolidated_metadata": consolidated,
        }

    def _column(self, path: str, new: Rows, chunk: int) -> _Column:
        inner = new.values.shape[1:]
        zarr.create_array(
            LocalStore(self.path),
            name=path,
            shape=(0, *inner),
            chunks=(chunk, *(max(1, n) for n in inner)),
            dtype=new.values.dtype,
            compressors=self._compressors,
            dimension_names=new.dims,
            attributes=new.attrs,
        )
        document = json.loads((self.path / path / ROOT).read_bytes())
        array = zarr.open_array(self._chunks, path=path, mode="r+", zarr_format=3)
        # Also chunks of nothing but zeros: one that is not there is then always damage, never data.
        return _Column(array.with_config({"write_empty_chunks": True}), document)


def wall_minus_monotonic_ns() -> int:
    """Return by how much the wall clock is ahead of the monotonic one (in nanoseconds).

    Of a few readings, the one between whose two looks at the monotonic clock the least time passed.
    """
    looks = [(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()) for _ in range(5)]
    before, wall, after = min(looks, key=lambda look: look[2] - look[0])
    return wall - (before + after) // 2


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _write(path: Path, data: bytes) -> None:
    """Replace a file as a whole."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
