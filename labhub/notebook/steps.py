"""What changes a session, to its end: an Interrupt ends the wait for it, and never leaves it half done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from labhub.tasks import Task

T = TypeVar("T")


class Steps:
    """Runs one step after the other in a thread of its own: Python interrupts the main thread only."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._closed = False
        self._wanted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Task(self._run, "labhub-steps")
        self._thread.start()

    def __call__(self, step: Callable[[], T]) -> T:
        """Run a step, and return or raise what it does; one inside another is a part of it.

        An Interrupt ends the wait. The step then goes on, and the next one waits for it. After `close`, and in a forked
        child, a step runs in the caller's thread.
        """
        if threading.get_ident() == self._thread.ident or not self._thread.is_alive():
            return step()
        outcome: Future[T] = Future()
        # Not the future's own wait: an interrupt inside a threading.Condition may come out as another error.
        done = threading.Lock()
        done.acquire()
        outcome.add_done_callback(lambda _: done.release())

        def run() -> None:
            try:
                outcome.set_result(step())
            except BaseException as error:  # noqa: BLE001  # whoever waits is told, whatever it is
                outcome.set_exception(error)

        with self._gate:
            closed = self._closed
            if not closed:
                self._wanted.put(run)
        if closed:
            return step()
        done.acquire()
        return outcome.result()

    def close(self) -> None:
        """End the thread, after the steps that were asked for."""
        with self._gate:
            self._closed = True
            self._wanted.put(None)

    def _run(self) -> None:
        while (run := self._wanted.get()) is not None:
            run()
            del run  # and with it what the step holds on to
