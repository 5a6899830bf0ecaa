"""Threads whose end can be waited for as often as one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Task(threading.Thread):
    """A daemon thread. Python up to 3.12 takes one for dead once a `join` of it was interrupted (bpo-45274).

    Parameters
    ----------
    run : callable
        What it does.
    name : str
        What it is called.
    """

    def __init__(self, run: Callable[[], object], name: str) -> None:
        super().__init__(target=run, name=name, daemon=True)
        self._over = threading.Event()

    def run(self) -> None:
        """Do it; called in the thread."""
        try:
            super().run()
        finally:
            self._over.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end (timeout in seconds; None waits for ever); whether it came."""
        if self.is_alive() and not self._over.wait(timeout):  # a forked child has no such thread
            return False
        self.join()
        return True
