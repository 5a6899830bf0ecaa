"""A reader of a DataBlock segment, written from docs/spec/datablock.md (sections 8, 9 and 11). No labhub in here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from .segment_file import (
    ACTIVE,
    FREE,
    LATEST_ONLY,
    LINES,
    LOSSLESS_LINES,
    PRODUCER_LOCK,
    SEQUENTIAL,
    SLICE,
    Busy,
    SegmentMap,
    fence,
    is_locked,
    line_lock,
    open_directory,
    open_segment,
    try_lock,
)


@dataclass(frozen=True)
class Slot:
    """One committed slot; `payload` is zero beyond `nbytes`."""

    seq: int
    timestamp_ns: int
    nbytes: int
    flags: int
    epoch: int
    checksum: bytes
    payload: bytes


class Evicted(Exception):
    """The producer evicted this lossless reader; `lost` slots are gone, and it reads on at the head."""

    def __init__(self, lost: int) -> None:
        super().__init__(f"evicted, {lost} slots lost")
        self.lost = lost


class SegmentReader:
    """Reads a segment, lossy or lossless. `start` is "newest", "oldest" or a seq."""

    def __init__(self, directory: str, name: str, *, lossless: bool = False, start: str | int = "newest") -> None:
        with open_directory(directory) as place:
            self._fd = open_segment(place, name)
        try:
            self.map = SegmentMap(self._fd)
            self.lossless = lossless
            self.line = self._take_line()
        except BaseException:
            os.close(self._fd)
            raise
        self.lost = self.received = 0
        if lossless:
            self.cursor = self._enlist()
            self._place(start, self.cursor)
        else:
            self._place(start, self.head)
            if self.line is not None:
                self._line_put("state", self._active)

    # ------------------------------------------------------------------------------------------------------- what is

    @property
    def head(self) -> int:
        return self.map.get("CommitLine", "commit")

    @property
    def closed(self) -> int:
        return self.map.get("OwnerLine", "closed")

    @property
    def epoch(self) -> int:
        return self.map.get("OwnerLine", "epoch")

    @property
    def instance_id(self) -> bytes:
        return self.map.raw("Identity", "instance_id")

    @property
    def producer_alive(self) -> bool:
        return is_locked(self._fd, PRODUCER_LOCK)

    # -------------------------------------------------------------------------------------------------- cursor lines

    def _line_put(self, field: str, value: int) -> None:
        if self.line is not None:
            self.map.put("CursorLine", field, value, self.line)

    def _take_line(self) -> int | None:
        sync = self.map.get("Identity", "sync")
        if self.lossless:
            candidates = {LATEST_ONLY: range(0), SEQUENTIAL: range(1)}.get(sync, range(LOSSLESS_LINES))
        else:
            candidates = range(LOSSLESS_LINES, LINES)
        for line in candidates:
            if not try_lock(self._fd, line_lock(line)):
                continue
            generation = (self.map.get("CursorLine", "state", line) >> 2) + 1
            self._active = generation << 2 | ACTIVE
            for field in ("received", "lost", "received_before", "lost_before", "start_time"):
                self.map.put("CursorLine", field, 0, line)
            self.map.put("CursorLine", "pid", os.getpid(), line)
            return line
        if self.lossless:
            raise Busy("no free line for a lossless reader")
        return None

    def _enlist(self) -> int:
        self._line_put("cursor", self.head)
        self._line_put("state", self._active)
        fence()
        cursor = self.head
        self._line_put("cursor", cursor)
        self._notify(cursor)
        return cursor

    def _oldest(self, head: int) -> int:
        return max(self.map.get("CommitLine", "first_seq"), head - self.map.capacity)

    def _place(self, start: str | int, head: int) -> None:
        match start:
            case "newest":
                self.cursor = head
            case "oldest":
                self.cursor = self._oldest(head)
            case int():
                self.cursor = max(start, self.map.get("CommitLine", "first_seq"))
        self._line_put("cursor", max(self.cursor, self._oldest(head)))

    def _notify(self, cursor: int, *, always: bool = False) -> None:
        fence()
        if not self.map.get("SpaceLine", "producer_waiting"):
            return
        if always or cursor >= self.map.get("SpaceLine", "wake_at"):
            self.map.put("SpaceLine", "producer_waiting", 0)
            self.map.add("SpaceLine", "word", 1)
            self.map.futex_wake("SpaceLine")

    def _check_evicted(self) -> None:
        if not self.lossless:
            return
        assert self.line is not None
        if self.map.get("CursorLine", "state", self.line) == self._active:
            return
        old = self.cursor
        self._active += 1 << 2
        self.cursor = self._enlist()
        self.lost += self.cursor - old
        self._show()
        raise Evicted(self.cursor - old)

    def _show(self) -> None:
        self._line_put("received", self.received)
        self._line_put("lost", self.lost)

    # ------------------------------------------------------------------------------------------------------- reading

    def read(self, limit: int = 1 << 30) -> list[Slot]:
        """Return unread slots, at once; those that were overwritten are counted in `lost`."""
        self._check_evicted()
        head = self.head
        if head - self.cursor > self.map.capacity:
            self._lose_until(head - self.map.capacity)
        count = max(0, min(limit, head - self.cursor, self.map.capacity))
        copies = [self._copy(seq) for seq in range(self.cursor, self.cursor + count)]
        # Only now, with every copy made, look at the seqs once more; on x86 the loads stay in this order.
        whole = [s for s in copies if s is not None and self.map.slot(s.seq, "seq") == 2 * s.seq + 2]
        self._check_evicted()
        self.lost += count - len(whole)
        self.received += len(whole)
        self._move(self.cursor + count)
        return whole

    def _copy(self, seq: int) -> Slot | None:
        m = self.map
        if m.slot(seq, "seq") != 2 * seq + 2:
            return None
        numbers = {f: m.slot(seq, f) for f in ("timestamp_ns", "nbytes", "flags", "epoch")}
        nbytes, at = min(numbers["nbytes"], m.slot_nbytes), m.place(seq)
        payload = m.payload[at : at + nbytes] + bytes(m.slot_nbytes - nbytes)
        return Slot(seq=seq, **numbers, checksum=m.checksum(seq), payload=payload)

    def _lose_until(self, seq: int) -> None:
        self.lost += seq - self.cursor
        self._move(seq)

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        self._show()
        self._line_put("cursor", cursor)
        if self.lossless:
            self._notify(cursor)

    def wait(self, seconds: float) -> bool:
        """Wait until something is unread; False at the end of the stream (or of the patience: TimeoutError)."""
        deadline = time.monotonic() + seconds
        while True:
            self._check_evicted()
            word = self.map.get("DataLine", "word")
            over = self.closed  # before commit: the producer commits before it closes
            if self.head > self.cursor:
                return True
            if over:
                return False
            if time.monotonic() > deadline:
                raise TimeoutError
            # Without compare-and-swap the waiters bit is not ours to set: a short slice stands in for the wake-up.
            self.map.futex_wait("DataLine", word, SLICE / 20)

    def close(self) -> None:
        self._show()
        if self.line is not None and self.map.get("CursorLine", "state", self.line) == self._active:
            self._line_put("state", self._active - ACTIVE + FREE)
        if self.lossless:
            self._notify(self.cursor, always=True)
        self.map.close()
        os.close(self._fd)

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
