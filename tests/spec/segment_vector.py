"""Make tests/vectors/segment.json: a small segment that real labhub wrote, with all that is in it by chance replaced.

Run ``python -m tests.spec.segment_vector`` after a change of the layout; `test_vectors` fails until it is done.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

from labhub import _native

from .segment_file import FIELDS, REGIONS

FILE = Path(__file__).parent.parent / "vectors" / "segment.json"
CAPACITY, SLOT_NBYTES, FIRST_SEQ = 4, 20, 10
TIME = 1_700_000_000_000_000_000
BY_CHANCE = {
    ("Identity", "instance_id"): bytes.fromhex("00112233445566778899aabbccddeeff"),
    ("CommitLine", "created_ns"): struct.pack("<q", TIME),
    ("OwnerLine", "start_time"): struct.pack("<Q", 1000),
    ("OwnerLine", "pid"): struct.pack("<I", 4711),
    ("OwnerLine", "clock_offset_ns"): struct.pack("<q", TIME - 5000),
    ("CursorLine", "start_time"): struct.pack("<Q", 2000),
    ("CursorLine", "pid"): struct.pack("<I", 4712),
}


def payload(seq: int) -> bytes:
    """Return what the slot holds: as many bytes as its seq, each of that value."""
    return bytes([seq]) * seq


def real_segment(directory: str) -> bytes:
    """Let labhub write slots 10 to 15 into a ring of four and stop in the middle of 16; a lossless reader is at 14."""
    producer = _native.Producer(
        directory,
        "x",
        capacity=CAPACITY,
        slot_nbytes=SLOT_NBYTES,
        schema_hash=bytes(range(32)),
        shared_secret=0xDEADBEEF12345678,
        checksum_policy=1,
        initial_seq=FIRST_SEQ,
    )
    for seq in range(10, 14):
        producer.write(payload(seq), -1, -1, TIME + seq)
    reader = _native.Consumer(directory, "x", lossless=True, start=_native.START_NEWEST)
    producer.write(payload(14), -1, -1, TIME + 14)
    place = producer.claim(-1, -1)
    producer.mapping.payload()[place * 24 : place * 24 + 15] = list(payload(15))
    producer.commit(15, TIME + 15, bytes(range(32, 64)))
    producer.claim(-1, -1)
    content = Path(directory, "x").read_bytes()
    reader.close()
    producer.close()
    return content


def describe() -> dict[str, Any]:
    """Return the contents of the file."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o700)
        content = bytearray(real_segment(directory))
    for (region, field), value in BY_CHANCE.items():
        offset, size = FIELDS[region][field]
        assert size == len(value)
        at = REGIONS[region] + offset
        content[at : at + size] = value
    lines = {at: bytes(content[at : at + 64]) for at in range(0, len(content), 64)}
    return {
        "nbytes": len(content),
        "lines": {str(at): line.rstrip(b"\0").hex() for at, line in lines.items() if any(line)},
        "expect": {
            "capacity": CAPACITY,
            "slot_nbytes": SLOT_NBYTES,
            "head": 16,
            "first_seq": FIRST_SEQ,
            "epoch": 1,
            "oldest": 12,
            "lossless_readers": [{"line": 0, "cursor": 14, "generation": 1, "state": 1}],
            "being_written": 16,
            "slots": [
                {
                    "seq": seq,
                    "timestamp_ns": TIME + seq,
                    "flags": int(seq == 15),
                    "checksum": bytes(range(32, 64)).hex() if seq == 15 else "",
                    "payload": payload(seq).hex(),
                }
                for seq in range(13, 16)
            ],
        },
    }


def rebuild(vector: dict[str, Any], path: Path) -> None:
    """Write the segment that the vector describes."""
    content = bytearray(vector["nbytes"])
    for at, line in vector["lines"].items():
        data = bytes.fromhex(line)
        content[int(at) : int(at) + len(data)] = data
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    FILE.write_text(json.dumps(describe(), indent=1) + "\n")
