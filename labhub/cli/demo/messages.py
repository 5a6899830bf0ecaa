"""What the demo's processes tell each other: reports up, `GO` and `STOP` down, one line each."""

from __future__ import annotations

import os
import threading
from typing import Literal

import msgspec

from labhub.tasks import Task

GO = b"go\n"
STOP = b"stop\n"

State = Literal["ready", "running", "done", "failed"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a producer or a reader is doing; each report replaces the one before.

    Attributes
    ----------
    state : {"ready", "running", "done", "failed"}
        Registered or attached; at work; ended in good order; ended by an error.
    slots : int
        Slots written, by the producer's count; or received, by the reader's.
    lost : int
        Slots lost, by the ring's accounting (readers only).
    wrong : int
        Slots whose content or order was not what was written (readers only).
    rate : float
        Slots per second from the first slot to the latest one.
    p50_ms, p99_ms : float or None
        Age of a slot when it reached the reader, median and 99th percentile (in milliseconds).
    now : str
        The latest value, in words.
    trace : tuple of float
        The latest stretch of a signal, the oldest value first.
    message : str
        What went wrong, or what else the user should know.
    """

    state: State
    slots: int = 0
    lost: int = 0
    wrong: int = 0
    rate: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    now: str = ""
    trace: tuple[float, ...] = ()
    message: str = ""


class Control:
    """A worker's end of the two pipes to the process that directs the demo.

    The other end vanishing counts as `STOP`, so that no worker outlives the demo.

    Attributes
    ----------
    go, stop : threading.Event
        Set when the word arrives.
    """

    def __init__(self, commands_fd: int = 0, reports_fd: int = 1) -> None:
        self.go = threading.Event()
        self.stop = threading.Event()
        self._commands_fd = commands_fd
        self._reports_fd = reports_fd
        Task(self._listen, "labhub-demo-control", failed=self._end).start()

    def send(self, report: Report) -> None:
        """Send a report; without a director there is nobody to tell, and the report is dropped."""
        try:
            os.write(self._reports_fd, msgspec.json.encode(report) + b"\n")
        except BrokenPipeError:
            self.stop.set()

    def _listen(self) -> None:
        # os.read and not sys.stdin: a daemon thread that holds the lock of a buffered reader aborts the interpreter's
        # shutdown.
        words = b""
        while chunk := os.read(self._commands_fd, 64):
            words += chunk
            if GO in words:
                self.go.set()
            if STOP in words:
                break
        self._end()

    def _end(self, _: object = None) -> None:
        self.stop.set()
        self.go.set()
