"""Reading one channel for a recording: a thread that empties the ring, and says what is missing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from labhub.datablock.batch import Batch
from labhub.errors import ChecksumError, ClosedError, ConcurrentUseError, Evicted, LabHubError, TimeoutExpired
from labhub.hub.consumers import Consumer
from labhub.recording.attaching import typed
from labhub.recording.layout import Gap
from labhub.tasks import Task

POLL = 0.1
"""How long the reader lets slots collect in the ring, so that many are copied at once (in seconds)."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """What a reader hands to the writer.

    Attributes
    ----------
    channel : str
        Where it comes from.
    batch : Batch or None
        New slots.
    gaps : list of Gap
        What is missing before or among them.
    clock_offset_ns : int
        Wall clock of this machine when they had been read, less the time of the newest of them (in nanoseconds).
    ended : bool
        Nothing more comes.
    error : str
        Why nothing more comes, if something is wrong.
    """

    channel: str
    batch: Batch | None = None
    gaps: list[Gap] = field(default_factory=list)
    clock_offset_ns: int = 0
    ended: bool = False
    error: str = ""


class ChannelReader:
    """Reads one channel in a thread of its own.

    Parameters
    ----------
    consumer : Consumer
        Its reader; this object closes it.
    deliver : callable
        Takes each `Arrival`; may wait, while the ring holds what comes.
    path : str
        Of the recording, for errors.

    Attributes
    ----------
    error : LabHubError or None
        What ended it early.
    """

    def __init__(self, consumer: Consumer, deliver: Callable[[Arrival], None], path: str) -> None:
        self.consumer = consumer
        self.channel = consumer.channel
        self.error: LabHubError | None = None
        self.n_slots = 0
        self.n_missing = 0
        self._deliver = deliver
        self._path = path
        self._stop = threading.Event()
        self._gaps: list[Gap] = []
        self._evicted = 0
        self._next_seq = 0
        self._epoch = consumer.epoch
        self._ended = False
        self._last = 0
        self._thread = Task(self._run, f"labhub-record-{self.channel}")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, drain: bool = True) -> None:
        """Ask it to end: after what is in the ring now has been read if `drain`, else at once. Twice is harmless."""
        if not self._stop.is_set():
            self._last = 0
            with contextlib.suppress(LabHubError):  # closed by an error of its own: then nothing is left to read
                self._last = self.consumer.head if drain else 0
        self._stop.set()
        if not drain:
            self._last = 0
            with contextlib.suppress(ConcurrentUseError):  # the thread ends with the call that it is in
                self.consumer.close()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end; False if it did not come within `timeout` seconds."""
        return self._thread.wait(timeout)

    def _run(self) -> None:
        try:
            with self.consumer:
                while not self._finished():
                    self._step()
        except Exception as error:  # noqa: BLE001  # the top of the thread: the recording shows it
            if not (isinstance(error, ClosedError) and self._stop.is_set()):
                self.error = typed(error, self.channel, self._path)
        finally:
            self._note_trailing_gap()
            why = "" if self.error is None else str(self.error)
            self._deliver(Arrival(self.channel, gaps=self._gaps, ended=True, error=why))

    def _finished(self) -> bool:
        return self._ended or (self._stop.is_set() and self.consumer.cursor >= self._last)

    def _step(self) -> None:
        try:
            batch = self._next()
        except TimeoutExpired:
            return
        except ChecksumError as error:
            self._missing(Gap(error.seq, 0, 1, "corrupt"))
            return
        except Evicted as error:
            self._evicted += error.lost
            self._next_seq = self.consumer.cursor
            return
        if batch is None:
            self._ended = True
            return
        if batch.lost or self._evicted:
            reason = "evicted" if self._evicted else "lapped" if batch.epoch == self._epoch else "restarted"
            self._missing(Gap(int(batch.seq[0]), int(batch.timestamp_ns[0]), batch.lost + self._evicted, reason))
            self._evicted = 0
        self._epoch = batch.epoch
        self.n_slots += len(batch)
        gaps, self._gaps = self._gaps, []
        self._deliver(Arrival(self.channel, batch, gaps, time.time_ns() - int(batch.timestamp_ns[-1])))

    def _next(self) -> Batch | None:
        """Read what is there once half the ring is full or a moment has passed; None at the end of the stream."""
        try:
            return next(self.consumer.batches(min_slots=max(1, self.consumer.capacity // 2), timeout=POLL), None)
        except TimeoutExpired:
            return next(self.consumer.batches(timeout=POLL), None)

    def _note_trailing_gap(self) -> None:
        """What was lost to an eviction is noted with the next slot; at the end there may be none."""
        if self._evicted:
            self._missing(Gap(self._next_seq, time.time_ns(), self._evicted, "evicted"))

    def _missing(self, gap: Gap) -> None:
        self._gaps.append(gap)
        self.n_missing += gap.n_slots
