"""From the ring into the reader's own memory: batches, also those that are larger than the ring."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labhub import _native
from labhub.datablock import checksums
from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.checksums import Findings
from labhub.datablock.config import ChecksumPolicy, nanoseconds
from labhub.datablock.iteration import InHand
from labhub.errors import ChecksumError, ProducerGone, StreamError, TimeoutExpired
from labhub.schema import Schema

if TYPE_CHECKING:
    from labhub.datablock.consumer import Mode

Item = Batch | StreamError


class Gathering:
    """What `DataBlockConsumer` does to read batches.

    What was read and is not handed out yet waits in `_ready`, in the order of the slots. A batch that needs more than
    half a ring is read in parts, as they come, into memory of the reader's own. So the ring has room all the time: a
    lossless reader does not hold up the producer, and a lossy one is not overtaken while it waits.

    Python looks for a Ctrl-C behind each call. What belongs together is therefore changed without a call in between.
    """

    def __init__(self, native: _native.Consumer, name: str, schema: Schema, mode: Mode) -> None:
        self._native = native
        self.name = name
        self.schema = schema
        self.mode: Mode = mode
        # Of more slots than this a batch is read in parts. The newest slot alone never is.
        self._part = sys.maxsize if mode == "latest" else max(1, native.capacity // 2)
        self._ready: list[Item] = []  # read, but not handed out yet
        self._memory: tuple[NDArray[Any], NDArray[np.void]] | None = None  # slots and headers, to read parts into
        self.in_hand = InHand()
        self.epochs_before = 0  # of earlier incarnations, for whom this one goes on
        self._untold = 0  # lost, but in no batch yet
        self._corrupt = 0
        self._findings: Findings | None = None  # of verifying every slot
        if native.checksum_policy == ChecksumPolicy.ENFORCED:
            self._findings = Findings(name, native.capacity)

    def next_batch(
        self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool, out: NDArray[Any] | None = None
    ) -> Batch | None:
        """Wait for one batch; None at the end of the stream. `batches` is the friendlier form, with the same errors."""
        if self._ready or min_slots > self._part:
            return self._gather(max_slots, min_slots, timeout, until_gone, out)
        deadline = None if timeout is None else time.monotonic() + timeout
        left = nanoseconds(timeout)
        while True:
            unread = self._native.wait(min_slots, left, until_gone)
            if unread == _native.STREAM_ENDED:
                return None
            if unread == 0:
                raise self.expired(timeout, min_slots)
            if self.mode == "latest":
                self._native.skip_to_newest()
                max_slots = 1
            batch = self._read(min(unread, max_slots), out)
            if batch is not None:
                return batch
            if deadline is not None:
                left = nanoseconds(max(0.0, deadline - time.monotonic()))

    def put_back(self, item: Item) -> None:
        """Hand a batch, or an error, out once more, first: it was read for somebody who no longer waits."""
        self._ready.insert(0, item)

    def take_back(self) -> None:
        """Hand out once more what an interrupt has kept from getting to whom it was read for."""
        if self.in_hand.item is not None:
            self.put_back(self.in_hand.item)

    def expired(self, timeout: float | None, min_slots: int = 1) -> TimeoutExpired:
        """Return the error of a wait for `min_slots` that took too long."""
        have = sum(len(item) for item in self._ready if isinstance(item, Batch)) + max(
            0, self._native.head - self._native.cursor
        )
        what = "nothing new"
        if 0 < have < min_slots:
            what = f"only {have} of {min_slots} slots, which wait for the next call,"
        why = "" if self._native.producer_alive or self._native.ended else "; its producer has died"
        return TimeoutExpired(f"{what} on {self.name!r} within {timeout:g} s{why}")

    # --------------------------------------------------------------------------------------------- parts of a batch

    def _gather(
        self, max_slots: int, min_slots: int, timeout: float | None, until_gone: bool, out: NDArray[Any] | None
    ) -> Batch | None:
        """As `next_batch`, from what is ready, and from the ring in parts."""
        self.in_hand.item = None
        ready = self._ready
        deadline = None if timeout is None else time.monotonic() + timeout
        left = nanoseconds(timeout)
        while self.mode != "latest" and not self._enough(min_slots):
            have = len(ready[0]) if ready else 0  # type: ignore[arg-type]  # an error is enough
            try:
                unread = self._native.wait(min(min_slots - have, self._part), left, until_gone)
                if unread == 0:
                    raise self.expired(timeout, min_slots)
                if unread != _native.STREAM_ENDED:
                    room = min(max_slots, min_slots - 1 + self._native.capacity)
                    self._read_on(min(unread, max_slots - have), room)
            except StreamError as error:
                if not ready:
                    raise
                if not isinstance(error, ProducerGone):  # that one is raised again by the next call
                    ready.append(error)
                break
            if unread == _native.STREAM_ENDED:
                if not ready:
                    return None
                break
            if deadline is not None:
                left = nanoseconds(max(0.0, deadline - time.monotonic()))
        return self._hand_out(max_slots, out)

    def _enough(self, min_slots: int) -> bool:
        """Join what follows each other; whether the first item can be handed out.

        It can if it has enough slots, or if no more can be added: behind it come an error, a loss or another epoch.
        """
        ready = self._ready
        while ready:
            first = ready[0]
            if isinstance(first, StreamError) or len(first) >= min_slots:
                return True
            if len(ready) == 1:
                return False
            second = ready[1]
            if isinstance(second, StreamError) or not _follows(first, second):
                return True
            ready[:2] = [self._joined(first, second)]
        return False

    def _joined(self, first: Batch, second: Batch) -> Batch:
        """Return both as one batch: where they are, if that is side by side in our memory."""
        n, total = len(first), len(first) + len(second)
        memory = self._memory
        if memory is not None and _begins(first, memory[0]) and _begins(second, memory[0][n:]):
            data, headers = memory
        else:
            data, headers = self._new_memory(total, first)
            data[n:], headers[n:] = second.data, second.headers
        return Batch(self.name, self.schema, data[:total], headers[:total], first.lost)

    def _read_on(self, n: int, room: int) -> None:
        """Copy `n` unread slots behind the batch that is ready, if there is one, into memory for `room` slots."""
        ready = self._ready
        held = ready[0] if ready else None
        memory = self._memory
        if memory is None or len(memory[0]) < room or (held is not None and not _begins(held, memory[0])):
            memory = self._new_memory(room, held)
            if held is not None:
                moved = Batch(self.name, self.schema, memory[0][: len(held)], memory[1][: len(held)], held.lost)  # type: ignore[arg-type, union-attr]
                ready[0] = moved
            self._memory = memory
        have = 0 if held is None else len(held)  # type: ignore[arg-type]
        data, headers = memory[0][have : have + n], memory[1][have : have + n]
        mark, untold, corrupt, count, lost = len(ready), self._untold, self._corrupt, -1, 0
        try:
            count, lost, _ = self._native.read(data, headers)
            self._untold += lost
            if self.epochs_before:
                headers["epoch"] += self.epochs_before
            self._get_ready_in_parts(data[:count], headers[:count])
        except KeyboardInterrupt:
            self._get_ready_again(data, headers, mark, untold, corrupt, count, lost)
            raise

    def _new_memory(self, n: int, begin: Item | None) -> tuple[NDArray[Any], NDArray[np.void]]:
        """Return memory for `n` slots and their headers, with those of a batch at its beginning."""
        data, headers = np.empty((n, *self.schema.shape), self.schema.dtype), np.empty(n, SLOT_HEADER)
        if isinstance(begin, Batch):
            data[: len(begin)], headers[: len(begin)] = begin.data, begin.headers
        return data, headers

    def _hand_out(self, max_slots: int, out: NDArray[Any] | None = None) -> Batch:
        """Hand out the first item that is ready, or as much of it as is wanted; raise it if it is an error."""
        item, rest = self._ready[0], None
        if isinstance(item, StreamError):
            self.in_hand.item = item
            del self._ready[0]
            raise item
        if len(item) > max_slots:
            item, rest = item.split(max_slots)
        if out is None:
            self._memory = None  # the batch owns it now
        elif not np.may_share_memory(item.data, out):
            into = out[: len(item)]
            into[...] = item.data
            item = Batch(self.name, self.schema, into, item.headers.copy(), item.lost)
        self.in_hand.item = item
        if rest is None:
            del self._ready[0]
        else:
            self._ready[0] = rest
        return item

    # --------------------------------------------------------------------------------------- one copy from the ring

    def _read(self, n: int, out: NDArray[Any] | None) -> Batch | None:
        """Copy `n` unread slots; None if there is no batch of them. Nothing else is ready."""
        schema = self.schema
        self.in_hand.item = None
        data = np.empty((n, *schema.shape), schema.dtype) if out is None else out
        if n < len(data):
            data = data[:n]
        headers = np.empty(n, SLOT_HEADER)
        untold, corrupt, count, lost = self._untold, self._corrupt, -1, 0
        try:
            count, lost, seam = self._native.read(data, headers)
            self._untold += lost
            if count == 0:  # the producer was faster than the copy; what it cost is told with the next batch
                return None
            if self.epochs_before:
                headers["epoch"] += self.epochs_before
            if count < n:
                data, headers = data[:count], headers[:count]
            if seam or self._findings is not None:
                self._get_ready_in_parts(data, headers)
                return self._hand_out(n)
            batch = Batch(self.name, schema, data, headers, self._untold)
            self._untold = 0
            self.in_hand.item = batch
            return batch
        except KeyboardInterrupt:
            if self.in_hand.item is None:
                self._get_ready_again(data, headers, 0, untold, corrupt, count, lost)
            raise

    def _get_ready_again(
        self,
        data: NDArray[Any],
        headers: NDArray[np.void],
        mark: int,
        untold: int,
        corrupt: int,
        count: int,
        lost: int,
    ) -> None:
        """Let what an interrupted read has copied be handed out later, behind the `mark` items that were ready before.

        `count` is below 0 if it is not known whether the read took place; `untold` and `corrupt` are from before it.
        """
        if count < 0:
            count, lost = self._native.last_read
            headers["epoch"] += self.epochs_before
        self._untold, self._corrupt = untold + lost, corrupt
        del self._ready[mark:]
        self._get_ready_in_parts(data[:count], headers[:count])

    def _get_ready_in_parts(self, data: NDArray[Any], headers: NDArray[np.void]) -> None:
        """Let slots be handed out around those that are corrupt."""
        first = 0
        if self._findings is not None:
            # The copy was validated: a slot that does not match its checksum was not overwritten, but is corrupt.
            for bad in checksums.mismatches(headers, data):
                self._get_ready(data[first:bad], headers[first:bad])
                self._ready.append(self._found_corrupt(headers[bad]))
                first = bad + 1
        self._get_ready(data[first:], headers[first:])

    def _get_ready(self, data: NDArray[Any], headers: NDArray[np.void]) -> None:
        """Let slots be handed out, one batch for each epoch; the first one tells what was lost."""
        if not len(data):
            return
        self._ready += Batch(self.name, self.schema, data, headers, self._untold).by_epoch()
        self._untold = 0

    def _found_corrupt(self, header: np.void) -> ChecksumError:
        """Count the slot that was just read as corrupt; the error to raise."""
        assert self._findings is not None  # nobody else verifies
        self._corrupt += 1
        return self._findings.add(header)


def _follows(first: Batch, second: Batch) -> bool:
    """Whether two batches can be one: nothing is missing between them, and one producer wrote both."""
    before, after = first.headers[-1], second.headers[0]
    return not second.lost and bool(after["seq"] == before["seq"] + 1 and after["epoch"] == before["epoch"])


def _begins(item: Item, memory: NDArray[Any]) -> bool:
    """Whether the slots of a batch are the first ones of an array."""
    if not isinstance(item, Batch) or len(item) > len(memory):
        return False
    return bool(item.data.__array_interface__["data"][0] == memory.__array_interface__["data"][0])
