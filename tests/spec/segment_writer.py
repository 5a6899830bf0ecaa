"""A producer of a DataBlock segment, written from docs/spec/datablock.md (sections 4 to 7, 10). No labhub in here."""

from __future__ import annotations

import contextlib
import os
import struct
import time

import blake3

from .segment_file import (
    ABI,
    ACTIVE,
    ENDED,
    EVICTED,
    FIELDS,
    HEADER_NBYTES,
    LATEST_ONLY,
    LINE,
    LOSSLESS_LINES,
    MAGIC,
    OPEN,
    PRODUCER_LOCK,
    REPLACED,
    SEQUENTIAL_SYNC,
    SLICE,
    Busy,
    SegmentMap,
    fence,
    line_lock,
    open_directory,
    open_segment,
    round_up,
    still_there,
    stride_of,
    try_lock,
    unlock,
)

RING_BUFFER = 2
ENFORCED = 2


class SegmentWriter:
    """Creates a segment, takes a dead producer's over, or replaces a dead one that differs."""

    def __init__(
        self,
        directory: str,
        name: str,
        *,
        capacity: int,
        slot_nbytes: int,
        schema_hash: bytes = bytes(32),
        sync: int = SEQUENTIAL_SYNC,
        checksum: int = 0,
        secret: int = 0,
    ) -> None:
        self._directory, self._name = directory, name
        self._capacity, self._slot_nbytes = capacity, slot_nbytes
        self._payload_offset = round_up(HEADER_NBYTES + capacity * LINE, 4096)
        self._total = round_up(self._payload_offset + capacity * stride_of(slot_nbytes), 4096)
        self._secret = secret
        self._identity = {"schema_hash": schema_hash, "policy": RING_BUFFER, "sync": sync, "checksum": checksum}
        self.took_over = False
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open_directory(directory) as place:
            while not (self._take_over(place) or self._create(place)):
                pass
        self._begin()

    # ------------------------------------------------------------------------------------------- creating, taking over

    def _take_over(self, place: int) -> bool:
        try:
            fd = open_segment(place, self._name)
        except FileNotFoundError:
            return False
        if not try_lock(fd, PRODUCER_LOCK):
            os.close(fd)
            raise Busy("the channel has a live producer")
        found = SegmentMap(fd, writer=True)
        usable = still_there(place, self._name, fd)
        if usable and (found.get("OwnerLine", "closed") != OPEN or not self._same_shape(found)):
            if found.get("OwnerLine", "closed") == OPEN:
                _end(found, REPLACED)
            os.unlink(self._name, dir_fd=place)
            usable = False
        if usable and found.get("Identity", "shared_secret") != self._secret:
            found.close()
            os.close(fd)
            raise PermissionError("the segment has another shared secret")
        if not usable:
            found.close()
            os.close(fd)
            return False
        self._fd, self.map, self.took_over = fd, found, True
        return True

    def _same_shape(self, found: SegmentMap) -> bool:
        mine = (self._capacity, self._slot_nbytes, self._total)
        theirs = tuple(found.get("Geometry", f) for f in ("capacity", "slot_nbytes", "total_nbytes"))
        same = found.raw("Identity", "schema_hash") == self._identity["schema_hash"]
        return mine == theirs and same and all(found.get("Identity", f) == v for f, v in self._numbers())

    def _numbers(self) -> list[tuple[str, int]]:
        return [(f, v) for f, v in self._identity.items() if isinstance(v, int)]

    def _create(self, place: int) -> bool:
        temporary = f".{self._name}.{os.getpid()}.{int.from_bytes(os.urandom(8))}.tmp"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o600, dir_fd=place)
        linked = False
        try:
            if try_lock(fd, PRODUCER_LOCK):
                os.posix_fallocate(fd, 0, self._total)
                _write_header(fd, self._geometry())
                self._fd, self.map = fd, SegmentMap(fd, writer=True, check=False)
                self._fill()
                with contextlib.suppress(FileExistsError, FileNotFoundError):
                    os.link(temporary, self._name, src_dir_fd=place, dst_dir_fd=place)
                    linked = True
        finally:
            os.unlink(temporary, dir_fd=place)
            if not linked:
                os.close(fd)
        return linked

    def _geometry(self) -> dict[str, int]:
        return {
            "abi": ABI,
            "header_nbytes": HEADER_NBYTES,
            "capacity": self._capacity,
            "slot_nbytes": self._slot_nbytes,
            "stride": stride_of(self._slot_nbytes),
            "slot_headers_offset": HEADER_NBYTES,
            "payload_offset": self._payload_offset,
            "total_nbytes": self._total,
        }

    def _fill(self) -> None:
        self.map.put_raw("Identity", "schema_hash", bytes(self._identity["schema_hash"]))  # type: ignore[arg-type]
        self.map.put_raw("Identity", "instance_id", os.urandom(16))
        for field, value in [*self._numbers(), ("shared_secret", self._secret)]:
            self.map.put("Identity", field, value)
        self.map.put("CommitLine", "created_ns", time.time_ns())
        self.map.put("Geometry", "magic", MAGIC)

    def _begin(self) -> None:
        m = self.map
        self.epoch = m.get("OwnerLine", "epoch") + 1
        m.put("OwnerLine", "pid", os.getpid())
        m.put("OwnerLine", "epoch", self.epoch)
        self._offset = time.time_ns() - time.monotonic_ns()
        self.head = m.get("CommitLine", "commit")
        self._least = self.head
        if self.took_over:
            while m.slot(self.head, "seq") == 2 * self.head + 2:
                self.head += 1
            m.put("SpaceLine", "producer_waiting", 0)
            m.add("CounterLine", "takeovers", 1)
            self._least = self.head - m.capacity
            self._publish()

    # ------------------------------------------------------------------------------------------------------- writing

    def claim(self, seconds: float = 5.0) -> int:
        """Open the next slot; its seq."""
        if self.map.get("Identity", "sync") != LATEST_ONLY and self.head - self._least >= self.map.capacity:
            self._wait_for_space(time.monotonic() + seconds)
        self.map.put_slot(self.head, "seq", 2 * self.head + 1)
        return self.head

    def write(self, payload: bytes, seconds: float = 5.0, time_ns: int | None = None) -> int:
        """Write one slot, with a time of its own if there is one; its seq."""
        seq, m = self.claim(seconds), self.map
        at = m.place(seq)
        m.payload[at : at + len(payload)] = payload
        m.put_slot(seq, "timestamp_ns", time.monotonic_ns() + self._offset if time_ns is None else time_ns)
        m.put_slot(seq, "nbytes", len(payload))
        m.put_slot(seq, "flags", 0)
        m.put_slot(seq, "epoch", self.epoch)
        if m.get("Identity", "checksum") == ENFORCED:
            m.put_checksum(seq, blake3.blake3(payload).digest())
            m.put_slot(seq, "flags", 1)
        m.put_slot(seq, "seq", 2 * seq + 2)
        m.add("CounterLine", "bytes_written", len(payload))
        self.head = seq + 1
        self._publish()
        return seq

    def _publish(self) -> None:
        self.map.put("CommitLine", "commit", self.head)
        # No exchange here: a plain store, and always a wake-up, so that no waiter is missed.
        self.map.put("DataLine", "word", self.head << 1)
        self.map.futex_wake("DataLine")

    # -------------------------------------------------------------------------------------------------- back-pressure

    def _scan(self) -> None:
        fence()
        least = self.head
        for line in range(LOSSLESS_LINES):
            if self.map.get("CursorLine", "state", line) & 3 == ACTIVE:
                least = min(least, self.map.get("CursorLine", "cursor", line))
        self._least = least

    def _wait_for_space(self, deadline: float) -> None:
        m = self.map
        while True:
            word = m.get("SpaceLine", "word")
            m.put("SpaceLine", "wake_at", self.head - m.capacity + max(1, m.capacity // 4))
            m.put("SpaceLine", "producer_waiting", 1)
            self._scan()
            if self.head - self._least < m.capacity:
                break
            if self._evict_the_dead():
                continue
            if time.monotonic() > deadline:
                m.put("SpaceLine", "producer_waiting", 0)
                raise TimeoutError
            m.futex_wait("SpaceLine", word, SLICE)
        m.put("SpaceLine", "producer_waiting", 0)

    def _evict_the_dead(self) -> bool:
        """Evict readers that died. Without compare-and-swap, under their lock, so that no newcomer is hit."""
        evicted = False
        for line in range(LOSSLESS_LINES):
            state = self.map.get("CursorLine", "state", line)
            behind = self.head - self.map.get("CursorLine", "cursor", line)
            if state & 3 != ACTIVE or behind < self.map.capacity or not try_lock(self._fd, line_lock(line)):
                continue
            if self.map.get("CursorLine", "state", line) == state:
                self.map.put("CursorLine", "state", state - ACTIVE + EVICTED, line)
                self.map.add("CounterLine", "evictions", 1)
                evicted = True
            unlock(self._fd, line_lock(line))
        return evicted

    # ------------------------------------------------------------------------------------------------------- closing

    def close(self) -> None:
        """End the stream and remove the segment. Twice is harmless."""
        if self._fd < 0:
            return
        _end(self.map, ENDED)
        with open_directory(self._directory) as place:
            if still_there(place, self._name, self._fd):
                os.unlink(self._name, dir_fd=place)
        self.abandon()

    def abandon(self) -> None:
        """Let go as a death would: the lock is dropped, and nothing is said."""
        self.map.close()
        os.close(self._fd)
        self._fd = -1

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _write_header(fd: int, geometry: dict[str, int]) -> None:
    """Write the geometry, before the file can be mapped by its own numbers."""
    for field, value in geometry.items():
        offset, size = FIELDS["Geometry"][field]
        os.pwrite(fd, struct.pack("<I" if size == 4 else "<Q", value), offset)


def _end(found: SegmentMap, how: int) -> None:
    found.put("OwnerLine", "closed", how)
    # With a head that nobody expects: see section 6.
    found.put("DataLine", "word", found.get("CommitLine", "commit") + (1 << 30) << 1)
    found.futex_wake("DataLine")
    found.add("SpaceLine", "word", 1)
    found.futex_wake("SpaceLine")
