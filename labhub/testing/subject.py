"""The native ring with the face of the model in `labhub.testing.model`, so that one test can drive both."""

from __future__ import annotations

import numpy as np

from labhub import _native
from labhub.datablock.batch import SLOT_HEADER
from labhub.testing.harness import Remote
from labhub.testing.model import Shape, Slot

SCHEMA_HASH = bytes(range(32))


class NativeWriter:
    """The producer's side, inside its own process."""

    def __init__(self, directory: str, name: str, shape: Shape, first_seq: int) -> None:
        self._native = _native.Producer(
            directory,
            name,
            capacity=shape.capacity,
            slot_nbytes=shape.slot_nbytes,
            schema_hash=SCHEMA_HASH,
            policy=shape.policy,
            sync_policy=shape.sync,
            initial_seq=first_seq,
        )
        self._payload = self._native.mapping.payload()
        self._index = 0

    def claim(self, evict: bool) -> None:
        """Open the next slot, and spoil what was in it."""
        self._index = self._native.claim(0, 0 if evict else -1)
        self._fill(b"\xee" * self._native.slot_nbytes)

    def commit(self, data: bytes) -> int:
        """Write into the open slot and publish it; its seq."""
        if self._native.claimed and len(data) <= self._native.slot_nbytes:
            self._fill(data)
        return self._native.commit(len(data))

    def write(self, data: bytes, evict: bool) -> int:
        """Claim and commit."""
        return self._native.write(data, 0, 0 if evict else -1)

    def write_many(self, slots: list[bytes], evict: bool) -> int:
        """Write one after the other; how many."""
        return self._native.write_many(b"".join(slots), 0, 0 if evict else -1)

    def write_copies(self, slots: list[tuple[int, bytes]], evict: bool) -> int:
        """Write slots with the seqs that they have; how many."""
        data = np.full((len(slots), self._native.slot_nbytes), 0xEE, np.uint8)
        headers = np.zeros(len(slots), SLOT_HEADER)
        for row, header, (seq, text) in zip(data, headers, slots, strict=True):
            n = min(len(text), len(row))
            row[:n] = np.frombuffer(text[:n], np.uint8)
            header["seq"], header["nbytes"] = seq, len(text)
        return self._native.write_copies(data, headers.view(np.void), 0, 0 if evict else -1)

    def abort(self) -> None:
        """Close the open slot without publishing it."""
        self._native.abort()

    def close(self) -> None:
        """End the stream."""
        self._native.close()

    @property
    def head(self) -> int:
        """Seq of the slot that is committed next."""
        return self._native.head

    @property
    def epoch(self) -> int:
        """Epoch of this producer."""
        return self._native.epoch

    def _fill(self, data: bytes) -> None:
        start = self._index * self._native.stride
        self._payload[start : start + len(data)] = np.frombuffer(data, np.uint8)


class NativeSegment:
    """One producer, by remote control. It can be killed."""

    def __init__(self, directory: str, name: str, shape: Shape, first_seq: int) -> None:
        self._remote = Remote(lambda: NativeWriter(directory, name, shape, first_seq))

    def claim(self, evict: bool) -> None:
        """See `ModelSegment`, here and below."""
        self._remote.call("claim", evict)

    def commit(self, data: bytes) -> int:
        """Publish the open slot; its seq."""
        return int(self._remote.call("commit", data))

    def write(self, data: bytes, evict: bool) -> int:
        """Claim and commit."""
        return int(self._remote.call("write", data, evict))

    def write_many(self, slots: list[bytes], evict: bool) -> int:
        """Write one after the other; how many."""
        return int(self._remote.call("write_many", slots, evict))

    def write_copies(self, slots: list[tuple[int, bytes]], evict: bool) -> int:
        """Write slots with the seqs that they have; how many."""
        return int(self._remote.call("write_copies", slots, evict))

    def abort(self) -> None:
        """Close the open slot without publishing it."""
        self._remote.call("abort")

    @property
    def head(self) -> int:
        """Seq of the slot that is committed next."""
        return int(self._remote.call("head"))

    @property
    def epoch(self) -> int:
        """Epoch of this producer."""
        return int(self._remote.call("epoch"))

    def close(self) -> None:
        """End the stream, then the process."""
        self._remote.call("close")
        self._remote.kill()

    def crash(self) -> None:
        """Kill the producer's process."""
        self._remote.kill()


class NativeReader:
    """A reader in this process, with the face of `ModelReader`."""

    def __init__(self, directory: str, name: str, lossless: bool, start: int) -> None:
        self._native = _native.Consumer(directory, name, lossless=lossless, start=start)
        self._view = self._native.mapping.payload()

    def wait(self, min_slots: int, until_gone: bool) -> int:
        """How many slots are unread, if at least `min_slots`; 0 if fewer, -1 at the end of the stream."""
        return self._native.wait(min_slots, 0, until_gone)

    def read(self, n: int) -> tuple[list[Slot], int]:
        """Read at most `n` slots; they, and how many were lost before them."""
        data, headers = self._buffers(n)
        count, lost, _ = self._native.read(data.reshape(-1), headers.view(np.void))
        return _slots(data, headers, count), lost

    def skip_to_newest(self) -> None:
        """Count all unread slots but the newest as lost."""
        self._native.skip_to_newest()

    def peek(self, first: int, n: int) -> list[Slot]:
        """History, cursor untouched."""
        data, headers = self._buffers(n)
        found, count = self._native.peek(first, data.reshape(-1), headers.view(np.void))
        slots = _slots(data, headers, count)
        assert not slots or slots[0].seq == found
        return slots

    def acquire(self, newest: bool) -> int:
        """Open the next, or the newest, slot in place."""
        return self._native.acquire(newest, 0)

    def valid(self) -> bool:
        """Whether the open slot is still what it was."""
        return self._native.valid()

    def look(self) -> Slot:
        """Return the open slot, as it is in shared memory."""
        header = np.frombuffer(self._native.header(), SLOT_HEADER)[0]
        seq = int(header["seq"])
        start = seq % self._native.capacity * self._native.stride
        data = self._view[start : start + int(header["nbytes"])].tobytes()
        return Slot(seq, data, int(header["epoch"]))

    def release(self) -> None:
        """Close the open slot and move on."""
        self._native.release()

    def seek(self, start: int) -> None:
        """Move the cursor of a lossy reader."""
        self._native.seek(start)

    def close(self) -> None:
        """Leave."""
        self._native.close()

    @property
    def cursor(self) -> int:
        """Seq of the slot that is read next."""
        return self._native.cursor

    @property
    def lost(self) -> int:
        """How many slots were lost."""
        return self._native.lost

    def _buffers(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((n, self._native.slot_nbytes), 0xAA, np.uint8), np.zeros(n, SLOT_HEADER)


def _slots(data: np.ndarray, headers: np.ndarray, count: int) -> list[Slot]:
    """Take what was read apart; bytes behind the committed length must be zero."""
    slots = []
    for row, header in zip(data[:count], headers[:count], strict=True):
        nbytes = int(header["nbytes"])
        assert not row[nbytes:].any(), "bytes behind the committed length are not zero"
        slots.append(Slot(int(header["seq"]), row[:nbytes].tobytes(), int(header["epoch"])))
    return slots


class NativeHost:
    """A directory with the segment of one channel in it, with the face of `ModelHost`."""

    def __init__(self, directory: str, name: str) -> None:
        self.directory = directory
        self.name = name
        self.segment: NativeSegment | None = None

    def open_producer(self, shape: Shape, first_seq: int) -> NativeSegment:
        """Create the segment, take a dead producer's over, or replace a dead one that differs."""
        segment = NativeSegment(self.directory, self.name, shape, first_seq)
        self.segment = segment
        return segment

    def close_producer(self) -> None:
        """End the stream and remove the segment."""
        assert self.segment is not None
        self.segment.close()

    def attach(self, lossless: bool, start: int) -> NativeReader:
        """Open a reader of whatever segment is there."""
        return NativeReader(self.directory, self.name, lossless, start)

    def attach_and_die(self, start: int) -> None:
        """A lossless reader attaches and is killed."""
        Remote(lambda: NativeReader(self.directory, self.name, True, start)).kill()

    def clean_up(self) -> None:
        """Kill the producer, if there is one, and remove its segment."""
        if self.segment is not None:
            self.segment.crash()
        _native.unlink_dead(self.directory, self.name)
