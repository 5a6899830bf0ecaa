"""A worker process of the demo, seen from the director."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from labhub.cli.demo.messages import Report
from labhub.tasks import Task, words


class Worker:
    """One child process and its latest report.

    Parameters
    ----------
    role, name : str
        What it does, as in `labhub.cli.demo.worker`.
    log : Path
        File for whatever it prints.
    environment : mapping of str to str
        Its environment.
    changed : threading.Condition
        Notified at each report, and at the end of the process.
    """

    def __init__(
        self, role: str, name: str, log: Path, environment: Mapping[str, str], changed: threading.Condition
    ) -> None:
        self.role = role
        self.name = name
        self.report: Report | None = None
        self.gone = False
        self._log = log
        self._changed = changed
        with log.open("wb") as errors:
            # A session of its own, so that Ctrl-C in the terminal reaches the director alone.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "labhub.cli.demo.worker", role, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                start_new_session=True,
            )
        self._thread = Task(self._collect, f"labhub-demo-{name}")
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def state(self) -> str:
        """State of the latest report; "starting" before the first, "failed" when it left without a last word."""
        state = "starting" if self.report is None else self.report.state
        return "failed" if self.gone and state != "done" else state

    @property
    def complaint(self) -> str:
        """Why it failed, in one line."""
        if self.report is not None and self.report.message:
            return self.report.message
        if self._thread.error is not None:
            return words(self._thread.error)
        printed = self._log.read_text(errors="replace").strip().splitlines()
        return printed[-1] if printed else f"ended with status {self._process.poll()}"

    def say(self, word: bytes) -> None:
        """Send `GO` or `STOP`; a worker that is gone hears nothing."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(word)
            self._process.stdin.flush()

    def hang_up(self) -> None:
        """Close the pipe to it, which it takes as `STOP`."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self, deadline: float) -> None:
        """Hang up and wait for the process, which is killed if it has not left by then (on the monotonic clock)."""
        assert self._process.stdout is not None
        self.hang_up()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.wait()
        self._process.stdout.close()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                with self._changed:
                    self.report = msgspec.json.decode(line, type=Report)
                    self._changed.notify_all()
        finally:
            with self._changed:
                self.gone = True
                self._changed.notify_all()
