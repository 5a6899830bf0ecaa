"""Objects in processes of their own, to be killed without a warning."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NoReturn, Self


class Remote:
    """An object in a forked process, which obeys calls until it is told to end, or killed.

    Parameters
    ----------
    make : callable
        Makes the object, in the child. What it raises is raised here.

    Notes
    -----
    A fork is cheap enough (a few milliseconds) for hundreds of deaths in a test. The caller must have
    no other threads.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        ours, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(make, theirs)
        theirs.close()
        self._pipe = ours
        try:
            self._answer()
        except BaseException:
            self.kill()
            raise

    def call(self, method: str, *args: object) -> Any:
        """Call a method, or get an attribute if there are no arguments and it is not callable."""
        self._pipe.send((method, args))
        return self._answer()

    def kill(self) -> None:
        """End the process with SIGKILL, and wait until the kernel has dropped its locks. Twice is harmless."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._pipe.close()
            self.pid = 0

    def _answer(self) -> Any:
        good, value = self._pipe.recv()
        if not good:
            raise value
        return value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _serve(make: Callable[[], object], pipe: Connection) -> NoReturn:
    """Obey; never return into the caller's program, whatever happens."""
    with contextlib.suppress(BaseException):
        target: object = None
        method, args = "", ()
        while True:
            try:
                if target is None:
                    target, value = make(), None
                else:
                    found = getattr(target, method)
                    value = found(*args) if callable(found) else found
                pipe.send((True, value))
            except Exception as error:  # noqa: BLE001  raised again on the other side
                pipe.send((False, error))
            method, args = pipe.recv()
    os._exit(0)
