"""A producer whose file was removed under it goes on in a new segment under the same name.

That is what the end of a login does: unless the user lingers, systemd removes that user's files in shared memory
(``RemoveIPC=yes`` in logind.conf), while programs in tmux or screen go on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from labhub.datablock.producer import DataBlockProducer, Lossless, open_producer
from labhub.errors import ConcurrentUseError, LabHubError
from labhub.hub.lease import Lease
from labhub.logs import event
from labhub.tasks import words

logger = logging.getLogger(__name__)

Announce = Callable[[DataBlockProducer], Future[None]]


class Succession:
    """Watches over the file of one producer.

    Parameters
    ----------
    block : DataBlockProducer
        The producer, which is open.
    lease : Lease
        Whose block it is, and then its successor.
    lossless : bool or "single"
        Whether, and how many, lossless readers may attach.
    announce : callable
        Tells the broker of it.

    Attributes
    ----------
    times : int
        How often a successor went on.
    trouble : str
        Why none could, so far; empty if none had to, or one does.
    """

    def __init__(self, block: DataBlockProducer, lease: Lease, lossless: Lossless, announce: Announce) -> None:
        self.block = block
        self.times = 0
        self.trouble = ""
        self._lease = lease
        self._lossless = lossless
        self._announce = announce
        self._lock = threading.Lock()
        self._file = _file_of(block)

    def look(self) -> None:
        """Let a successor go on if the file is gone. Not while a slot is open, or another thread is inside a call."""
        with self._lock:
            found = _file_of(self.block)
            if self._file is not None and found == self._file:
                self.trouble = ""
                return
            if found is not None and not self.block.closed:  # somebody else's: what is mapped here goes on
                self._tell("another file is in its place")
                return
            if not self.block.closed and self.block.busy:
                return
            before = self.block
            try:
                if not self._lease.renew(partial(self._opened, before)):
                    return
                announced = self._announce(self.block)
            except ConcurrentUseError:
                return
            except (LabHubError, OSError) as error:
                self._tell(words(error))
                return
            self.times += 1
            self.trouble = ""
            announced.add_done_callback(self._answered)
            facts = event("segment_renewed", channel=before.name, directory=before.directory)
            logger.warning(
                "the file of channel %r in %s was removed; its producer goes on in a new one",
                *(before.name, before.directory),
                extra=facts,
            )

    def successor_of(self, block: DataBlockProducer) -> DataBlockProducer | None:
        """Return who goes on for a block; waited for if it is just being opened; None if nobody does."""
        with self._lock:
            return None if self.block is block or self.block.closed else self.block

    def _opened(self, before: DataBlockProducer) -> DataBlockProducer:
        self.block = open_producer(
            before.name,
            before.schema,
            directory=before.directory,
            capacity=before.capacity,
            lossless=self._lossless,
            timeout=before.timeout,
            evict_after=before.evict_after,
            checksum=before.checksum_policy,
            first_seq=before.next_seq,
        )
        self.block.rate = before.rate
        self._file = _file_of(self.block)
        return self.block

    def _answered(self, answer: Future[None]) -> None:
        if not answer.cancelled() and (error := answer.exception()) is not None:
            self._tell(words(error))

    def _tell(self, reason: str) -> None:
        if reason != self.trouble:
            facts = event("segment_gone", channel=self.block.name, directory=self.block.directory, reason=reason)
            logger.error("the file of channel %r was removed, and %s", self.block.name, reason, extra=facts)
        self.trouble = reason


def _file_of(block: DataBlockProducer) -> tuple[int, int] | None:
    try:
        status = os.stat(os.path.join(block.directory, block.name), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
