"""The DataBlock segment as docs/spec/datablock.md describes it: places, locks, files. No labhub in here, on purpose.

`test_documents` compares `FIELDS` and `REGIONS` with the tables of the document. Needs a 64-bit little-endian Linux,
and x86-64 for its memory order (see the beginning of the document).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LINE = 64
LINES = 128
LOSSLESS_LINES = 64
HEADER_NBYTES = 512 + LINES * LINE
MAGIC = 0x31424B4C42484C00
ABI = 1
PRODUCER_LOCK = 1 << 62
SLICE = 0.05
FREE, ACTIVE, EVICTED = 0, 1, 2
OPEN, ENDED, REPLACED = 0, 1, 2
LATEST_ONLY, SEQUENTIAL, SEQUENTIAL_SYNC = 0, 1, 2

REGIONS = {
    "Geometry": 0,
    "Identity": 64,
    "CommitLine": 128,
    "DataLine": 192,
    "SpaceLine": 256,
    "OwnerLine": 320,
    "CounterLine": 384,
    "CursorLine": 512,
    "SlotHeader": HEADER_NBYTES,
}
BEFORE = 448

FIELDS: dict[str, dict[str, tuple[int, int]]] = {
    "Geometry": {
        "magic": (0, 8),
        "abi": (8, 4),
        "header_nbytes": (12, 4),
        "capacity": (16, 8),
        "slot_nbytes": (24, 8),
        "stride": (32, 8),
        "slot_headers_offset": (40, 8),
        "payload_offset": (48, 8),
        "total_nbytes": (56, 8),
    },
    "Identity": {
        "schema_hash": (0, 32),
        "instance_id": (32, 16),
        "shared_secret": (48, 8),
        "policy": (56, 1),
        "sync": (57, 1),
        "checksum": (58, 1),
        "reserved": (59, 5),
    },
    "CommitLine": {"commit": (0, 8), "first_seq": (8, 8), "created_ns": (16, 8)},
    "DataLine": {"word": (0, 4)},
    "SpaceLine": {"word": (0, 4), "producer_waiting": (4, 4), "wake_at": (8, 8), "joined": (16, 4), "seen": (20, 4)},
    "OwnerLine": {
        "start_time": (0, 8),
        "pid": (8, 4),
        "epoch": (12, 4),
        "closed": (16, 4),
        "opened_epoch": (20, 4),
        "clock_offset_ns": (24, 8),
    },
    "CounterLine": {
        name: (8 * k, 8)
        for k, name in enumerate(
            ["bytes_written", "aborts", "evictions", "blocked", "blocked_ns", "takeovers", "timeouts", "clock_steps"]
        )
    },
    "CursorLine": {
        "cursor": (0, 8),
        "state": (8, 8),
        "received": (16, 8),
        "lost": (24, 8),
        "start_time": (32, 8),
        "received_before": (40, 8),
        "lost_before": (48, 8),
        "pid": (56, 4),
    },
    "SlotHeader": {
        "seq": (0, 8),
        "timestamp_ns": (8, 8),
        "nbytes": (16, 8),
        "flags": (24, 4),
        "epoch": (28, 4),
        "checksum": (32, 32),
    },
}
SIGNED = {"created_ns", "timestamp_ns"}


class BadSegment(Exception):
    """The file is no segment that this program can use; `field` gave it away."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class Busy(Exception):
    """A lock is held by somebody who lives."""


def _flock(kind: int, byte: int) -> bytes:
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)


def try_lock(fd: int, byte: int) -> bool:
    """Take an OFD lock on one byte, if it is free."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, byte))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(fd: int, byte: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, byte))


def is_locked(fd: int, byte: int) -> bool:
    """Whether another open file description holds the byte."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
    return struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK


def line_lock(line: int) -> int:
    return PRODUCER_LOCK + 1 + line


_libc = ctypes.CDLL(None, use_errno=True)
_FUTEX = {"x86_64": 202, "aarch64": 98}[platform.machine()]
_fence_lock = threading.Lock()


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def fence() -> None:
    """Do what a seq_cst fence does on x86: taking a lock is a locked instruction."""
    with _fence_lock:
        pass


def check_private(status: os.stat_result, *, directory: bool) -> None:
    kind = stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode)
    if not kind or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError("not a private " + ("directory" if directory else "file"))


@contextmanager
def open_directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        check_private(os.fstat(fd), directory=True)
        yield fd
    finally:
        os.close(fd)


def open_segment(directory: int, name: str) -> int:
    fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    try:
        check_private(os.fstat(fd), directory=False)
    except BaseException:
        os.close(fd)
        raise
    return fd


def still_there(directory: int, name: str, fd: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def round_up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def stride_of(slot_nbytes: int) -> int:
    return round_up(slot_nbytes, 8 if slot_nbytes < LINE else LINE)


class SegmentMap:
    """A mapped and checked segment. Each field is read and written with one access of its own size."""

    def __init__(self, locked: int, *, writer: bool = False, check: bool = True) -> None:
        # A map keeps its open file description alive, and with it the locks: so it has another one than `locked`.
        fd = os.open(f"/proc/self/fd/{locked}", os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map(fd, writer, check)
        finally:
            os.close(fd)

    def _map(self, fd: int, writer: bool, check: bool) -> None:
        size = os.fstat(fd).st_size
        if size < HEADER_NBYTES:
            raise BadSegment("size")
        self._header = mmap.mmap(fd, HEADER_NBYTES)
        # One access per field: an index into a cast memoryview is one. A slice, or struct with "<", need not be.
        self._views = {n: memoryview(self._header).cast(c) for n, c in {1: "B", 4: "I", 8: "Q"}.items()}
        self._slots: mmap.mmap | None = None
        if check:
            self._check(size)
        self.capacity = self.get("Geometry", "capacity")
        self.slot_nbytes = self.get("Geometry", "slot_nbytes")
        self.stride = self.get("Geometry", "stride")
        self.payload_offset = self.get("Geometry", "payload_offset")
        self._slots = mmap.mmap(fd, self.payload_offset)
        self._slot_views = {n: memoryview(self._slots).cast(c) for n, c in {4: "I", 8: "Q"}.items()}
        access = mmap.ACCESS_WRITE if writer else mmap.ACCESS_READ
        self.payload = mmap.mmap(fd, self.capacity * self.stride, access=access, offset=self.payload_offset)

    def _check(self, size: int) -> None:
        g = {name: self.get("Geometry", name) for name in FIELDS["Geometry"]}
        limit = 1 << 46
        expected = {"magic": MAGIC, "abi": ABI, "header_nbytes": HEADER_NBYTES}
        for field, value in expected.items():
            if g[field] != value:
                raise BadSegment(field)
        if not 1 <= g["capacity"] <= limit or not 1 <= g["slot_nbytes"] <= limit:
            raise BadSegment("capacity")
        if g["stride"] != stride_of(g["slot_nbytes"]) or g["stride"] > limit // g["capacity"]:
            raise BadSegment("stride")
        if g["slot_headers_offset"] != HEADER_NBYTES:
            raise BadSegment("slot_headers_offset")
        least = round_up(HEADER_NBYTES + g["capacity"] * LINE, 4096)
        if not least <= g["payload_offset"] <= size or g["payload_offset"] % mmap.PAGESIZE:
            raise BadSegment("payload_offset")
        if g["total_nbytes"] != size or g["capacity"] * g["stride"] > size - g["payload_offset"]:
            raise BadSegment("total_nbytes")
        for field in ("policy", "sync", "checksum"):
            if self.get("Identity", field) > 2:
                raise BadSegment(field)

    def get(self, region: str, field: str, line: int = 0) -> int:
        """Read a number of the header."""
        offset, size = FIELDS[region][field]
        value: int = self._views[size][(REGIONS[region] + line * LINE + offset) // size]
        return value - (1 << 64) if field in SIGNED and value >> 63 else value

    def put(self, region: str, field: str, value: int, line: int = 0) -> None:
        """Write a number of the header."""
        offset, size = FIELDS[region][field]
        self._views[size][(REGIONS[region] + line * LINE + offset) // size] = value & ((1 << 8 * size) - 1)

    def add(self, region: str, field: str, n: int) -> None:
        self.put(region, field, self.get(region, field) + n)

    def raw(self, region: str, field: str) -> bytes:
        """Read bytes of the header that do not change."""
        offset, size = FIELDS[region][field]
        at = REGIONS[region] + offset
        return bytes(self._views[1][at : at + size])

    def put_raw(self, region: str, field: str, data: bytes) -> None:
        at = REGIONS[region] + FIELDS[region][field][0]
        self._views[1][at : at + len(data)] = data

    def slot(self, seq: int, field: str) -> int:
        """Read a number of the header of a slot."""
        offset, size = FIELDS["SlotHeader"][field]
        value: int = self._slot_views[size][(HEADER_NBYTES + seq % self.capacity * LINE + offset) // size]
        return value - (1 << 64) if field in SIGNED and value >> 63 else value

    def put_slot(self, seq: int, field: str, value: int) -> None:
        offset, size = FIELDS["SlotHeader"][field]
        self._slot_views[size][(HEADER_NBYTES + seq % self.capacity * LINE + offset) // size] = value % (1 << 8 * size)

    def checksum(self, seq: int) -> bytes:
        at = HEADER_NBYTES + seq % self.capacity * LINE + FIELDS["SlotHeader"]["checksum"][0]
        assert self._slots is not None
        return self._slots[at : at + 32]

    def put_checksum(self, seq: int, checksum: bytes) -> None:
        at = HEADER_NBYTES + seq % self.capacity * LINE + FIELDS["SlotHeader"]["checksum"][0]
        assert self._slots is not None
        self._slots[at : at + 32] = checksum

    def place(self, seq: int) -> int:
        """Where the payload of a slot begins, within `payload`."""
        return seq % self.capacity * self.stride

    def futex_wait(self, region: str, expected: int, seconds: float) -> None:
        """Sleep until woken, or for `seconds`; not at all if the word is another."""
        time = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        _libc.syscall(_FUTEX, self._address(region), 0, ctypes.c_uint(expected), ctypes.byref(time), None, 0)

    def futex_wake(self, region: str) -> None:
        _libc.syscall(_FUTEX, self._address(region), 1, 2**31 - 1, None, None, 0)

    def _address(self, region: str) -> ctypes.c_void_p:
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._header))
        return ctypes.c_void_p(base + REGIONS[region] + FIELDS[region]["word"][0])

    def close(self) -> None:
        for view in [*self._views.values(), *self._slot_views.values()]:
            view.release()
        self.payload.close()
        if self._slots is not None:
            self._slots.close()
        self._header.close()
