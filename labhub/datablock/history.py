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
        """Return the last slots, or those of the last seconds; `Batch.complete` says whether the ring held them all."""
        native = self._native
        head, begin = native.head, native.first_seq
        asked = begin if last is None else max(begin, head - checked_count("last", last))
        first, older = max(asked, head - native.capacity), False
        span = -1 if seconds is None else nanoseconds(seconds, "seconds")
        if span >= 0:
            first, older = native.first_within(first, span)
        copied = self._copy(first, max(0, head - first))
        # Whether nothing that was asked for had been overwritten: by where the ring began, or by what was copied.
        reached = native.head - native.capacity < asked or (len(copied) > 0 and int(copied.seq[0]) == asked)
        batch = self._checked(copied)
        if span >= 0 and len(batch):
            times = batch.timestamp_ns
            kept = times >= max(int(times[-1]) - span, np.iinfo(np.int64).min)
            if not kept.all():
                batch = Batch(self._name, self._schema, batch.data[kept], batch.headers[kept])
        everything = last is None and seconds is None  # whatever is there
        if everything or older or reached:
            return batch
        return Batch(self._name, self._schema, batch.data, batch.headers, complete=False)

    def _held(self, head: int) -> range:
        return range(max(0, head - self._native.capacity), head)

    def read(self, first: int, n: int) -> Batch:
        """Return the slots ``first .. first + n`` that are still there.

        Raises
        ------
        ChecksumError
            For the first one that is found to be corrupt. It is left out from then on.
        """
        return self._checked(self._copy(first, n))

    def _checked(self, batch: Batch) -> Batch:
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
