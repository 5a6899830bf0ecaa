"""What a ring still holds, read without moving a cursor."""

from __future__ import annotations

import time

import numpy as np

from labhub import _native
from labhub.datablock import checksums
from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.checksums import Findings
from labhub.datablock.config import checked_count, nanoseconds
from labhub.schema import Schema

LOOK_INTERVAL = 0.01
"""How often the head is looked at while the whole ring is corrupt or holes (in seconds)."""


class History:
    """The committed slots of a ring.

    Parameters
    ----------
    native : _native.Consumer
        Attached to it.
    name : str
        The channel.
    schema : Schema
        What one slot looks like.
    findings : Findings or None
        The corrupt slots so far, which are left out; None if no checksum is verified.
    """

    def __init__(self, native: _native.Consumer, name: str, schema: Schema, findings: Findings | None) -> None:
        self._native = native
        self._name = name
        self._schema = schema
        self._findings = findings

    def latest(self, timeout: float | None) -> Batch | None:
        """Return the newest slot that is not known to be corrupt, as a batch of one; None if none is there in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            head = self._native.head
            for seq in reversed(self._held(head)):  # the newest may be a hole
                if seq not in (self._findings or ()) and len(batch := self.read(seq, 1)):
                    return batch
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._native.cursor < head == self._native.head:  # unread ones, so that a wait would not wait
                time.sleep(LOOK_INTERVAL if left is None else min(LOOK_INTERVAL, left))
                waited_in_vain = left == 0.0
            else:
                waited_in_vain = self._native.wait(1, nanoseconds(left)) <= 0
            if waited_in_vain and self._native.head == head:
                return None

    def snapshot(self, last: int | None, seconds: float | None) -> Batch:
        """Return the last slots, or those of the last seconds."""
        head = self._native.head
        held = self._held(head)
        n = len(held) if last is None else min(checked_count("last", last), len(held))
        first = head - n
        if seconds is not None:
            first = max(first, self._first_since(first, head, seconds))
        return self.read(first, head - first)

    def _held(self, head: int) -> range:
        return range(max(0, head - self._native.capacity), head)

    def _first_since(self, first: int, head: int, seconds: float) -> int:
        span = nanoseconds(seconds, "seconds")
        newest = self._timestamp(range(head - 1, first - 1, -1))
        if newest is None:
            return first
        low, high = first, head - 1  # timestamps never fall within an epoch
        while low < high:
            middle = (low + high) // 2
            probe = self._timestamp(range(max(middle, self._held(self._native.head).start), high))
            if probe is None or probe >= newest - span:
                high = middle
            else:
                low = middle + 1
        return low

    def _timestamp(self, seqs: range) -> int | None:
        """Return the time of the first of these slots that is there: neither a hole nor overwritten."""
        return next((int(batch.timestamp_ns[0]) for seq in seqs if len(batch := self._copy(seq, 1))), None)

    def read(self, first: int, n: int) -> Batch:
        """Return the slots ``first .. first + n`` that are still there.

        Raises
        ------
        ChecksumError
            For the first one that is found to be corrupt. It is left out from then on.
        """
        batch = self._copy(first, n)
        bad = [] if self._findings is None else checksums.mismatches(batch.headers, batch.data)
        for k in bad:
            if self._findings is not None and int(batch.seq[k]) not in self._findings:
                raise self._findings.add(batch.headers[k])
        if not bad:
            return batch
        return Batch(self._name, self._schema, np.delete(batch.data, bad, axis=0), np.delete(batch.headers, bad))

    def _copy(self, first: int, n: int) -> Batch:
        data = np.empty((n, *self._schema.shape), self._schema.dtype)
        headers = np.empty(n, SLOT_HEADER)
        count = 0
        if n:
            _, count = self._native.peek(first, data.reshape(-1).view(np.uint8), headers.view(np.void))
        return Batch(self._name, self._schema, data[:count], headers[:count])
