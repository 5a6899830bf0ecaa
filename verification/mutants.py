"""Faults to sow into a copy of the native headers, to prove that the native checks would find them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

HEADERS = Path(__file__).resolve().parent.parent / "native" / "include"


@dataclass(frozen=True)
class Mutant:
    """Pieces of text to exchange, each of which must occur exactly once: file, old, new."""

    name: str
    edits: tuple[tuple[str, str, str], ...]

    def sow(self, into: Path) -> Path:
        """Copy the headers, exchange the pieces, and return the include directory.

        Raises
        ------
        LookupError
            If a piece does not occur exactly once: the code has changed, and the mutant must follow it.
        """
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(HEADERS, into)
        for file, old, new in self.edits:
            path = into / "labhub" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise LookupError(f"mutant {self.name}: {file} contains {old!r} {text.count(old)} times, not once")
            path.write_text(text.replace(old, new))
        return into


def one(name: str, file: str, old: str, new: str) -> Mutant:
    """Return a mutant of one edit."""
    return Mutant(name, ((file, old, new),))


RACES = [
    one(
        "CURSOR_RELAXED",
        "consumer.hpp",
        "l->cursor.store(cursor, std::memory_order_release);",
        "l->cursor.store(cursor, std::memory_order_relaxed);",
    ),
    one(
        "SCAN_RELAXED",
        "producer.hpp",
        "= h.lines[k].cursor.load(std::memory_order_acquire);",
        "= h.lines[k].cursor.load(std::memory_order_relaxed);",
    ),
    Mutant(
        "COMMIT_AND_SEQ_RELAXED",
        (
            (
                "producer.hpp",
                "h.commit.commit.store(head, std::memory_order_release);",
                "h.commit.commit.store(head, std::memory_order_relaxed);",
            ),
            (
                "producer.hpp",
                "s.seq.store(complete(i), std::memory_order_release);",
                "s.seq.store(complete(i), std::memory_order_relaxed);",
            ),
            (
                "wait.hpp",
                "h.data.word.exchange(data_word(commit), std::memory_order_acq_rel)",
                "h.data.word.exchange(data_word(commit), std::memory_order_relaxed)",
            ),
        ),
    ),
]
"""Found by ThreadSanitizer with all sides on one mapping."""

LOGIC = [
    one("NO_SECOND_LOOK", "consumer.hpp", "std::max(early, clobbered(first, n))", "early"),
    one(
        "NO_STATE_RECHECK",
        "consumer.hpp",
        "      if (lossless_) check_evicted();\n      LABHUB_FAILPOINT(read_validated);",
        "",
    ),
    one("NO_REPAIR", "producer.hpp", "LABHUB_FAILPOINT(repair_found_complete);\n      ++head_;", "break;"),
    one("COMMIT_NO_WAKE", "wait.hpp", "& 1) futex_wake(h.data.word);", "& 1) (void)h;"),
    one("CLOSE_NO_WAKE", "creation.hpp", "  wake_readers(h, ", "  if (how == kOpen) wake_readers(h, "),
    one("NO_NOTIFY", "consumer.hpp", "if (lossless_) notify_producer(header(), cursor);", ""),
    one("LEAVE_NO_NOTIFY", "consumer.hpp", "if (lossless_) notify_producer(header(), cursor_, true);", ""),
    one(
        "HOLES_UNMARKED",
        "producer.hpp",
        "        begin_slot(head_ + k + (step - 1 - k) / segment_->capacity * segment_->capacity);\n",
        "",
    ),
    one("HOLES_TAKE_UNREAD_PLACES", "producer.hpp", "room() == segment_->capacity ? n : std::min(n, room())", "n"),
    one("HOLES_UNPUBLISHED", "producer.hpp", "      if (room() == 0) publish(head_);\n", ""),
    one("HOLE_IS_A_SLOT", "consumer.hpp", "if (s.seq.load(std::memory_order_relaxed) < complete(i))", "if (false)"),
    one(
        "HOLE_IS_OVERWRITTEN",
        "consumer.hpp",
        "seq.load(std::memory_order_relaxed) > complete(i);",
        "seq.load(std::memory_order_relaxed) != complete(i);",
    ),
    one(
        "BATCH_GOES_ON_OVER_HOLES",
        "consumer.hpp",
        "count = leading(headers + holes, want - bad - holes, false);",
        "count = want - bad - holes;",
    ),
    one("MAPPING_HOLDS_LOCK", "segment.hpp", "MAP_POPULATE : 0), own, 0)", "MAP_POPULATE : 0), fd, 0)"),
]
"""Found by the payloads, the counts and the waits of `ring`."""

TRUST = [
    one("STRIDE_TRUSTED", "segment.hpp", "if (g.stride != s.stride) throw", "if (g.stride == 0) throw"),
    one("PAYLOAD_OFFSET_TRUSTED", "segment.hpp", "if (g.payload_offset < s.payload_offset || ", "if ("),
    one(
        "TOTAL_TRUSTED",
        "segment.hpp",
        "if (g.total_nbytes != file_nbytes || g.capacity * g.stride > file_nbytes - g.payload_offset)",
        "if (g.total_nbytes == 0)",
    ),
    one("NBYTES_TRUSTED", "consumer.hpp", "std::min(headers[k].nbytes, size)", "headers[k].nbytes"),
    one(
        "MAPPED_BEFORE_THE_CHECK",
        "segment.hpp",
        "check_header(early, early.geometry.magic.load(std::memory_order_relaxed), size, path);\n"
        "  refuse_holes(o, path);",
        "(void)early;",
    ),
    one("HOLES_BELIEVED", "segment.hpp", "  refuse_holes(o, path);\n", ""),
]
"""Found by `header_fuzz`."""
