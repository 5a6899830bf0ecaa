"""A Zarr v3 store that is being written, one commit after the other.

Chunks are written by zarr-python. What of them counts is said by the consolidated metadata in the root's ``zarr.json``,
which is replaced as a whole, by one `rename`: at any moment, a reader and a killed recorder's heir find each channel as
long as it was at the last commit, with all arrays of the same length.
"""

from __future__ import annotations

import contextlib
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
from labhub.recording.inside import entries, read_inside
from labhub.recording.layout import CONVENTIONS, Rows, chunk_rows
from labhub.recording.manifest import ROOT, Manifest
from labhub.recording.proof import RESERVE, signing_key
from labhub.recording.sums import SUMS, listed
from labhub.schema import Schema

FORMAT_VERSION = 2
"""Since version 2, dates and durations are in the unit of their dtype; in version 1 they were nanoseconds."""
ATTRIBUTE = "labhub_recording"
"""The attribute of the root by which a store is known as ours; it holds the version and the provenance."""
BINDING = ("run_id", "title", "begun", "part")
"""Of the provenance, what the manifest says in its first line: which recording this is."""
ENDLESS = 1 << 48
LARGEST_FOUND = 64 * 1024 * 1024
"""Most bytes of a file of somebody else's that is put into the manifest as it was found."""
RESERVE_NBYTES = 256 * 1024
"""Space that is given back when the disk is full, so that the last commit finds room (in bytes)."""


class _Noting(WrapperStore[LocalStore]):
    """Passes on to a local store, and notes each file in the manifest before it is written.

    Arrays have no end here: chunks can be written while the store's own metadata, which say how much of them counts,
    wait for the commit.
    """

    manifest: Manifest

    async def set(self, key: str, value: Buffer) -> None:
        self.manifest.announce(key, value.as_numpy_array())
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
        if "shape" not in document:
            return value
        document["shape"][0] = ENDLESS
        return (prototype or default_buffer_prototype()).buffer.from_bytes(_json(document))


class _Below:
    """Contains each of some directories, and whatever is below them."""

    def __init__(self, directories: set[str]) -> None:
        self._directories = directories

    def __contains__(self, name: object) -> bool:
        return str(name).split("/")[0] in self._directories


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
        facts = {name: self._provenance[name] for name in BINDING if name in self._provenance}
        self._chunks.manifest = self._manifest = Manifest(path, signing_key(), facts)
        (path / RESERVE).write_bytes(bytes(RESERVE_NBYTES))
        self._groups: dict[str, dict[str, Any]] = {}
        self._columns: dict[str, _Column] = {}
        self._given_up: set[str] = set()
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
        (self.path / channel).mkdir()
        self._write_node(channel, document)
        self._groups[channel] = document

    def describe(self, channel: str, **attrs: Any) -> None:
        """Add attributes to the group of a channel; they count with the next `commit`."""
        self._groups[channel]["attributes"] |= attrs

    def give_up(self, channel: str, error: str) -> None:
        """Write no more of a channel, and say why in its group. Arrays that hold nothing yet are forgotten."""
        for path in [p for p, column in self._columns.items() if p.rpartition("/")[0] == channel and not column.rows]:
            del self._columns[path]
        self._given_up.add(channel)
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

    def commit(self) -> None:
        """Make everything count that was appended."""
        self._sign(_json(self._root(final=False)))

    def _sign(self, root: bytes, **facts: object) -> None:
        self._check_in_place()
        temporary = self.path / f".{ROOT}.partial"
        try:
            temporary.write_bytes(root)  # first: a full disk is met before the signature is there
            self._manifest.commit(root, **facts)
            try:
                os.replace(temporary, self.path / ROOT)
            except BaseException:
                self._manifest.retract()
                raise
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _write_node(self, path: str, document: dict[str, Any]) -> None:
        """Write the metadata of a group or an array, as one of the files that the manifest has."""
        name, text = f"{path}/{ROOT}", _json(document)
        self._manifest.announce(name, text)
        try:
            _write(self.path / name, text)
        except BaseException:
            self._manifest.take_back(name)
            raise

    def close(self) -> None:
        """Commit for the last time, as complete, and write each node's own metadata for readers that want them."""
        self.give_reserve()
        nodes = self._groups | {path: column.consolidated() for path, column in self._columns.items()}
        for path, document in nodes.items():
            self._write_node(path, document)
        for name in self._in_the_way():
            with contextlib.suppress(OSError):
                self._manifest.announce(name, read_inside(self.path, name, LARGEST_FOUND))
        if self._manifest.failed:  # of a channel that ended early; then it is noted here, and the list is true
            self.commit()
        root = _json(self._root(final=True))
        # The list comes first: whenever the last commit is there, so is the list.
        _write(self.path / SUMS, listed(self._manifest.sums(root, final=True)))
        self._sign(root, final=True)
        self._manifest.close()

    def abandon(self) -> None:
        """Leave it as it was at the last commit."""
        if self.in_place:
            with contextlib.suppress(OSError):
                (self.path / SUMS).unlink(missing_ok=True)  # it is of a last commit that did not come
        self._manifest.close()

    def give_reserve(self) -> None:
        """Give the reserved space back to the disk. Twice is harmless."""
        (self.path / RESERVE).unlink(missing_ok=True)

    def _in_the_way(self) -> list[str]:
        """Files that somebody else has put where a channel was to be; they are accounted for as they were found."""
        inside = _Below(self._given_up)
        found = [name for name, regular in entries(self.path, inside) if regular] if self._given_up else []
        return [name for name in found if name.split("/")[0] in self._given_up and name not in self._manifest]

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
            self._chunks,
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
