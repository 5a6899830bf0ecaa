"""A DataBlock that is open and known to the broker."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Protocol

from labhub.errors import LabHubError
from labhub.logs import event

logger = logging.getLogger(__name__)

# How long a close waits for the broker to confirm that a channel or a reader is gone (in seconds).
WITHDRAW_TIMEOUT = 1.0


class Closable(Protocol):
    """Either end of a DataBlock."""

    def close(self) -> None:
        """Close it, any number of times."""


class Lease:
    """One open end of a DataBlock and what it takes to withdraw it from the broker.

    It does not refer to the object that the user holds, so that it can outlive it by the moment that cleaning up takes.

    Parameters
    ----------
    block : Closable
        The end of the DataBlock.
    withdraw : callable
        Starts the deregistration, and returns its future.
    """

    def __init__(self, block: Closable, withdraw: Callable[[], Future[None]]) -> None:
        self._block = block
        self._withdraw = withdraw
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._closed = False

    def renew(self, open_again: Callable[[], Closable]) -> bool:
        """Close the DataBlock and go on with another one under the same name; whether that was done.

        Raises
        ------
        ConcurrentUseError
            Another thread is inside a call on it; nothing was closed, and the call can be repeated. So it can after an
            error of `open_again`.
        """
        with self._lock:
            if self._closed or os.getpid() != self._pid:
                return False
            self._block.close()
            self._block = open_again()
            return True

    def release(self) -> Future[None] | None:
        """Close the DataBlock and start to withdraw it; the confirmation to wait for, or None where there will be none.

        A forked child closes nothing, because the lease is its parent's.
        """
        if os.getpid() != self._pid:
            return None
        with self._lock:
            if self._closed:
                return None
            self._block.close()
            self._closed = True
        try:
            return self._withdraw()
        except LabHubError as error:
            facts = event("deregistration_unconfirmed", reason=str(error))
            logger.debug("a deregistration was not sent: %s", error, extra=facts)
            return None

    def close(self) -> None:
        """Close the DataBlock and withdraw it; idempotent.

        The broker's confirmation is waited for, but not for long: a broker that is gone has nothing to forget.
        """
        confirmation = self.release()
        if confirmation is not None:
            wait([confirmation], WITHDRAW_TIMEOUT)

    def abandon(self) -> None:
        """Close without waiting, because nobody holds the object any more. Safe inside the garbage collector."""
        self.release()
