"""What happens to labhub's threads and channels when the interpreter ends."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401  its exit function waits for executors: ours has to come before it
import logging
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any

from labhub import _native
from labhub.errors import LabHubError
from labhub.logs import event

logger = logging.getLogger(__name__)

exiting = threading.Event()
"""Set when the main thread has ended: executors let their threads end then, and take no new work.

Without this, a wait in an executor would keep the interpreter alive for ever. Python has no public function for it.
"""

_closers: list[Callable[[], object]] = []
_first: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # each with the process that it is of


def at_exit(close: Callable[[], object]) -> Callable[[], object]:
    """Have a function called when the interpreter ends, those that came last first. Usable as a decorator."""
    _closers.append(close)
    return close


def close_first(owner: Any) -> None:
    """Have an owner closed when the main thread has ended, before Python waits for threads that are no daemons.

    For what has such threads of its own, as a Zenoh session does: they would keep the interpreter alive for ever.
    """
    _first[owner] = os.getpid()


def finalizer(owner: object, close: Callable[[], object]) -> weakref.finalize[[], object]:
    """Have `close` called when the owner is dropped, or at the latest when the interpreter ends."""
    return weakref.finalize(owner, close)


class _Quiet:
    """In place of `threading.excepthook`: nobody is told what a daemon thread got from a channel that was closed."""

    def __init__(self, hook: Callable[[Any], object]) -> None:
        self._hook = hook

    def __call__(self, args: Any) -> None:
        ended = issubclass(args.exc_type, EOFError) and _raised_here(args.exc_traceback)
        if not (issubclass(args.exc_type, LabHubError) or ended):
            self._hook(args)


def _raised_here(trace: TracebackType | None) -> bool:
    name = ""
    while trace is not None:
        name, trace = str(trace.tb_frame.f_globals.get("__name__")), trace.tb_next
    return name.startswith("labhub.")


def _main_thread_ended() -> None:
    exiting.set()
    for owner, pid in list(_first.items()):
        if pid == os.getpid():  # in a forked child it is its parent's
            _close(owner.close)


def _begin() -> None:
    threading.excepthook = _Quiet(threading.excepthook)
    while _closers:
        _close(_closers.pop())


def _close(close: Callable[[], object]) -> None:
    try:
        close()
    except Exception:  # the others must be closed all the same
        facts = event("close_at_exit_failed", closer=getattr(close, "__qualname__", repr(close)))
        logger.exception("something could not be closed at the end of the interpreter", extra=facts)


# Finalizers run in reverse order, and this one is made before those of all producers and consumers: it comes last. All
# of them run in one exit function of weakref's, which is registered by now: `_begin` runs before it.
_last = weakref.finalize(_Quiet, _native.end)
atexit.register(_begin)
getattr(threading, "_register_atexit", lambda _: None)(_main_thread_ended)
