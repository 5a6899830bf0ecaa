"""The ring as it should be, in plain Python: an oracle for the native one.

Everything that was ever committed stays in a list, so what a reader may see is a matter of comparing numbers. There is
no memory to overwrite, no atomic and no wait: a call that would have to wait says at once what it would say after its
timeout. `labhub.testing.subject` gives the native ring the same face.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile

from labhub.errors import (
    BackpressureTimeout,
    ChannelBusy,
    ChannelNotFound,
    ClosedError,
    ConcurrentUseError,
    Evicted,
    InvalidArgument,
    LabHubError,
    Lapped,
    ProducerGone,
)

LATEST_ONLY, SEQUENTIAL, SEQUENTIAL_SYNC = 0, 1, 2
NEWEST, OLDEST, LAST = -1, -2, -3
"""Where a reader begins, if not at a seq."""
ENDED, NOTHING = -1, -2
"""What `ModelReader.acquire` gives instead of a seq: the stream has ended; nothing is there yet."""
ATTEMPTS = 8
"""How often one read goes on when it finds nothing but what is lost."""
LINES_OF = {LATEST_ONLY: 0, SEQUENTIAL: 1, SEQUENTIAL_SYNC: 64}
"""How many lossless readers a policy allows."""


@dataclass(frozen=True)
class Shape:
    """What a producer asks for; a dead producer's segment is taken over only if all of it agrees."""

    capacity: int
    slot_nbytes: int
    sync: int
    policy: int


@dataclass(frozen=True)
class Slot:
    """One committed slot: its seq, its committed bytes and the epoch of who wrote it."""

    seq: int
    data: bytes
    epoch: int


@dataclass
class Line:
    """The place of one lossless reader in the segment, as the producer sees it."""

    cursor: int
    alive: bool = True
    active: bool = True


@dataclass
class ModelSegment:
    """One incarnation of a segment, with its producer's side."""

    shape: Shape
    first_seq: int
    slots: list[Slot | None] = field(default_factory=list)
    """From `first_seq` on; None for a hole."""
    lines: dict[int, Line] = field(default_factory=dict)
    epoch: int = 0
    alive: bool = False
    ended: bool = False
    claimed: bool = False
    next_seq: int = 0
    """Seq of the slot that is written next: ahead of the head where holes are not published yet."""
    begun: int = 0
    """One more than the last seq whose place was opened or passed over: what was there before can no longer be read."""
    known: int = 0
    """Slowest cursor when the producer last looked; it looks when this leaves no room, and when there is a newcomer."""
    newcomer: bool = False
    """Whether a lossless reader has registered for older slots since the producer last looked."""
    evictions: int = 0
    aborts: int = 0

    @property
    def head(self) -> int:
        """Seq of the slot that is committed next."""
        return self.first_seq + len(self.slots)

    @property
    def oldest_held(self) -> int:
        """Seq of the oldest slot that the ring still has a place for."""
        return max(self.first_seq, self.head - self.shape.capacity)

    def readable(self, seq: int) -> bool:
        """Whether a committed slot has not been overwritten."""
        inside = self.oldest_held <= seq < self.head
        return inside and seq >= self.begun - self.shape.capacity and not self.is_hole(seq)

    def is_hole(self, seq: int) -> bool:
        """Whether nobody wrote a committed slot."""
        return self.slots[seq - self.first_seq] is None

    def start_producer(self) -> None:
        """A producer creates the segment, or takes it over."""
        self.alive = True
        self.claimed = False
        self.next_seq = self.head
        self.epoch += 1
        self.known = self.head if self.epoch == 1 else self.head - self.shape.capacity

    def crash(self) -> None:
        """The producer dies without closing."""
        self.alive = False

    def close(self) -> None:
        """The producer closes: readers drain what is left."""
        self.alive = False
        self.ended = True

    # ------------------------------------------------------------------------------------------------------- writing

    def claim(self, evict: bool) -> None:
        """Open the next slot; `evict` throws out living readers that hold the ring full."""
        self._check_open()
        if self.claimed:
            raise ConcurrentUseError("a slot is already open")
        self._find_room(evict)
        self.claimed = True
        self.begun = max(self.begun, self.next_seq + 1)

    def commit(self, data: bytes) -> int:
        """Publish the open slot; its seq."""
        self._check_open()
        if not self.claimed:
            raise InvalidArgument("no slot is open")
        if len(data) > self.shape.slot_nbytes:
            raise InvalidArgument("too long")
        self._publish_holes()
        self.slots.append(Slot(self.next_seq, data, self.epoch))
        self.next_seq = self.head
        self.claimed = False
        return self.head - 1

    def abort(self) -> None:
        """Close the open slot without publishing it."""
        if self.claimed:
            self.claimed = False
            self.aborts += 1

    def write(self, data: bytes, evict: bool) -> int:
        """Claim and commit."""
        self._check_open()
        if len(data) > self.shape.slot_nbytes:
            raise InvalidArgument("too long")
        self.claim(evict)
        return self.commit(data)

    def write_many(self, slots: list[bytes], evict: bool) -> int:
        """Write one after the other; how many. An error says how many came before it."""
        for written, data in enumerate(slots):
            try:
                self.write(data, evict)
            except LabHubError as error:
                error.__dict__["written"] = written
                raise
        return len(slots)

    def write_copies(self, slots: list[tuple[int, bytes]], evict: bool) -> int:
        """Write slots with the seqs that they have; those between are holes. How many; an error says so, too."""
        for written, (seq, data) in enumerate(slots):
            try:
                self._check_open()
                if seq < self.next_seq or len(data) > self.shape.slot_nbytes:
                    raise InvalidArgument("written already, or too long")
                self._pass_over(seq - self.next_seq, evict)
                self.write(data, evict)
            except LabHubError as error:
                error.__dict__["written"] = written
                raise
        return len(slots)

    def _pass_over(self, n: int, evict: bool) -> None:
        if n and self.claimed:
            raise ConcurrentUseError("a slot is open")
        while n:
            self._find_room(evict)
            step = n if self._room() == self.shape.capacity else min(n, self._room())
            n -= step
            self.next_seq += step
            self.begun = max(self.begun, self.next_seq)
            if self._room() == 0:  # readers must see the holes to make room
                self._publish_holes()

    def _publish_holes(self) -> None:
        self.slots += [None] * (self.next_seq - self.head)

    def _check_open(self) -> None:
        if not self.alive:
            raise ClosedError("the producer was closed")

    def _room(self) -> int:
        if self.shape.sync == LATEST_ONLY:
            return self.shape.capacity
        return max(0, self.shape.capacity - (self.next_seq - self.known))

    def _find_room(self, evict: bool) -> None:
        if self._room() == 0 or self.newcomer:
            self._look()
        if self._room() == 0:
            self._make_room(evict)

    def _look(self) -> None:
        self.newcomer = False
        self.known = min([self.next_seq, *(line.cursor for line in self.lines.values() if line.active)])

    def _make_room(self, evict: bool) -> None:
        blockers = [x for x in self.lines.values() if x.active and self.next_seq - x.cursor >= self.shape.capacity]
        for line in blockers:
            if evict or not line.alive:
                line.active = False
                self.evictions += 1
        self._look()
        if self._room() == 0:
            raise BackpressureTimeout("full", lag=self.next_seq - self.known)

    # ------------------------------------------------------------------------------------------------------- reading

    def attach(self, lossless: bool, start: int) -> ModelReader:
        """Open a reader."""
        return ModelReader(self, lossless, start)

    def attach_and_die(self, start: int) -> None:
        """A lossless reader attaches and its process is killed: its line stays as it was."""
        reader = ModelReader(self, True, start)
        assert reader.line is not None
        reader.line.alive = False

    def take_line(self) -> Line:
        """Take the first line that no living reader holds; a dead one's is forgotten with it."""
        allowed = LINES_OF[self.shape.sync]
        if not allowed:
            raise InvalidArgument("this segment never makes its producer wait")
        for k in range(allowed):
            if k not in self.lines or not self.lines[k].alive:
                self.lines[k] = Line(self.head)
                return self.lines[k]
        raise ChannelBusy("no line is free")


class ModelReader:
    """A reader. Its cursor minus where it began is always what it received plus what it lost."""

    def __init__(self, segment: ModelSegment, lossless: bool, start: int) -> None:
        self.segment = segment
        self.line = segment.take_line() if lossless else None
        self.cursor = segment.head
        self.lost = 0
        self.untold = 0
        self.opened = False
        self.closed = False
        self._place(start)

    def wait(self, min_slots: int, until_gone: bool) -> int:
        """How many slots are unread, if at least `min_slots`; 0 if fewer, -1 at the end of the stream."""
        self._check_open()
        self._check_evicted()
        segment = self.segment
        unread = self._unread()
        if unread >= min(max(min_slots, 1), segment.shape.capacity):
            return unread
        if segment.ended:
            return unread or ENDED
        if until_gone and not segment.alive:
            if unread:
                return unread
            raise ProducerGone("the producer died")
        return 0

    def read(self, n: int) -> tuple[list[Slot], int]:
        """Read at most `n` slots, up to the next hole; they, and how many were lost before them."""
        self._check_open()
        self._check_closed_slot()
        self._check_evicted()
        segment = self.segment
        for _ in range(ATTEMPTS):
            self._skip_overwritten()
            n = min(n, self._unread())
            end = self.cursor + n
            first = next((seq for seq in range(self.cursor, end) if segment.readable(seq)), end)
            found = [self._slot(seq) for seq in takewhile(segment.readable, range(first, end))]
            self._lose(first - self.cursor)
            self._advance(first + len(found))
            if found or not n:
                return found, self._tell()
            n = max(1, n // 2)
        return [], self._tell()

    def skip_to_newest(self) -> None:
        """Count all unread slots but the newest as lost."""
        self._check_open()
        self._check_closed_slot()
        self._to_newest()

    def peek(self, first: int, n: int) -> list[Slot]:
        """History, cursor untouched."""
        self._check_open()
        wanted = range(max(first, self.segment.oldest_held), min(first + n, self.segment.head))
        return [self._slot(seq) for seq in wanted if self.segment.readable(seq)]

    def acquire(self, newest: bool) -> int:
        """Open the next, or the newest, slot in place; its seq, or `ENDED`, or `NOTHING`."""
        self._check_open()
        self._check_closed_slot()
        while True:
            unread = self.wait(1, False)
            if unread <= 0:
                return ENDED if unread else NOTHING
            if newest:
                self._to_newest()
            else:
                self._skip_overwritten()
            if self.segment.readable(self.cursor):
                self.opened = True
                return self.cursor
            self._lose(1)
            self._advance(self.cursor + 1)

    def valid(self) -> bool:
        """Whether the open slot is still what it was."""
        self._check_open()
        self._need_open()
        return self.segment.readable(self.cursor) and (self.line is None or self.line.active)

    def look(self) -> Slot:
        """Return the open slot."""
        self._check_open()
        self._need_open()
        self._check_evicted()
        if not self.segment.readable(self.cursor):
            raise Lapped("overwritten", seq=self.cursor)
        return self._slot(self.cursor)

    def release(self) -> None:
        """Close the open slot and move on."""
        self._check_open()
        self._need_open()
        self.opened = False
        self._check_evicted()
        seq, intact = self.cursor, self.segment.readable(self.cursor)
        if not intact:
            self.lost += 1  # told by the error itself
        self._advance(seq + 1)
        if not intact:
            raise Lapped("overwritten", seq=seq)

    def seek(self, start: int) -> None:
        """Move the cursor of a lossy reader."""
        self._check_open()
        if self.line is not None:
            raise InvalidArgument("a lossless reader cannot seek")
        self._check_closed_slot()
        self._place(start)

    def close(self) -> None:
        """Leave; a lossless reader's line is free again."""
        self.closed = True
        if self.line is not None:
            self.line.alive = self.line.active = False

    # ------------------------------------------------------------------------------------------------------- details

    def _slot(self, seq: int) -> Slot:
        slot = self.segment.slots[seq - self.segment.first_seq]
        assert slot is not None, "a hole has no slot"
        return slot

    def _unread(self) -> int:
        return min(max(0, self.segment.head - self.cursor), self.segment.shape.capacity)

    def _place(self, start: int) -> None:
        segment = self.segment
        head = segment.head
        if start == NEWEST:
            self.cursor = head
        elif start == OLDEST:
            begun = min(head, segment.begun - segment.shape.capacity) if self.line is not None else 0
            self.cursor = max(segment.oldest_held, begun)
        elif start == LAST:
            self.cursor = max(segment.first_seq, head - 1)
        else:
            self.cursor = max(start, segment.first_seq)
        if self.line is not None:
            if self.cursor > head:
                self.line.alive = self.line.active = False
                raise InvalidArgument("not written yet")
            self.line.cursor = max(self.cursor, segment.oldest_held)
            segment.newcomer |= start != NEWEST

    def _skip_overwritten(self) -> None:
        oldest = self.segment.head - self.segment.shape.capacity
        if self.cursor < oldest:
            self._lose(oldest - self.cursor)
            self._advance(oldest)

    def _to_newest(self) -> None:
        older = self.segment.head - self.cursor - 1
        if older > 0:
            self._lose(older)
            self._advance(self.cursor + older)

    def _lose(self, n: int) -> None:
        self.lost += n
        self.untold += n

    def _tell(self) -> int:
        told, self.untold = self.untold, 0
        return told

    def _advance(self, cursor: int) -> None:
        self.cursor = cursor
        if self.line is not None:
            self.line.cursor = cursor

    def _check_evicted(self) -> None:
        if self.line is None or self.line.active:
            return
        head = self.segment.head
        self.opened = False
        self._lose(head - self.cursor)
        self.line.active = True
        self._advance(head)
        raise Evicted("evicted", lost=self._tell())

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("the reader was closed")

    def _check_closed_slot(self) -> None:
        if self.opened:
            raise ConcurrentUseError("a slot is still open")

    def _need_open(self) -> None:
        if not self.opened:
            raise InvalidArgument("no slot is open")


class ModelHost:
    """The place where the segment of one channel is, or is not."""

    def __init__(self) -> None:
        self.segment: ModelSegment | None = None

    def open_producer(self, shape: Shape, first_seq: int) -> ModelSegment:
        """Create the segment, take a dead producer's over, or replace a dead one that differs."""
        segment = self.segment
        if segment is not None and segment.alive:
            raise ChannelBusy("the channel has a producer")
        if segment is not None and segment.shape != shape:
            segment.ended = True  # its readers drain it and are told
            segment = None
        if segment is None:
            segment = self.segment = ModelSegment(shape, first_seq)
        segment.start_producer()
        return segment

    def close_producer(self) -> None:
        """End the stream and remove the segment."""
        assert self.segment is not None
        self.segment.close()
        self.segment = None

    def attach(self, lossless: bool, start: int) -> ModelReader:
        """Open a reader of whatever segment is there."""
        return self._found().attach(lossless, start)

    def attach_and_die(self, start: int) -> None:
        """A lossless reader attaches and is killed."""
        self._found().attach_and_die(start)

    def _found(self) -> ModelSegment:
        if self.segment is None:
            raise ChannelNotFound("no segment")
        return self.segment
