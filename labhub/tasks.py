"""Threads that keep the error that ended them, and whose end can be waited for as often as one likes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from labhub.logs import event, get_logger

logger = get_logger(__name__)
# A program that has not configured logging gets errors on its standard error, which in a notebook is some other cell's.
logger.addHandler(logging.NullHandler())


class Task(threading.Thread):
    """A daemon thread. Every thread of labhub is one, so that none of them ends in silence.

    An exception that nothing inside `run` has caught is kept in `error` and logged as ``thread_failed``. It is not
    printed: a notebook shows what a thread prints below a cell that has nothing to do with it.

    Python up to 3.12 takes a thread for dead once a `join` of it was interrupted (bpo-45274); `wait` does not.

    Parameters
    ----------
    run : callable
        What it does.
    name : str
        What it is called.
    failed : callable, optional
        Called in the thread with the exception that ended it, for an owner that has more to do than to show `error`.

    Attributes
    ----------
    error : BaseException or None
        What ended it early; None if nothing did, or not yet.
    """

    def __init__(
        self, run: Callable[[], object], name: str, failed: Callable[[BaseException], object] | None = None
    ) -> None:
        super().__init__(target=run, name=name, daemon=True)
        self.error: BaseException | None = None
        self._failed = failed
        self._over = threading.Event()

    def run(self) -> None:
        """Do it; called in the thread."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001  # the top of a thread: nobody above it could show the error
            self.error = error
            report("thread_failed", error, thread=self.name)
            if self._failed is not None:
                self._failed(error)
        finally:
            self._over.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end (timeout in seconds; None waits for ever); whether it came."""
        if self.is_alive() and not self._over.wait(timeout):  # a forked child has no such thread
            return False
        self.join()
        return True


def words(error: BaseException) -> str:
    """Return an error as one line; one that is not labhub's own with its type, without which it may say nothing.

    Examples
    --------
    >>> words(KeyError("pump"))
    "KeyError: 'pump'"
    """
    text = " ".join(str(error).split())
    if type(error).__module__.startswith("labhub."):
        return text
    if isinstance(error, OSError) and error.strerror:  # without its number, or that of a file
        return f"{error.strerror}: {error.filename}" if isinstance(error.filename, str) else error.strerror
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def report(name: str, error: BaseException, **facts: object) -> None:
    """Log an error that nobody has foreseen, as an event with these facts; its traceback only where debug is logged.

    Parameters
    ----------
    name : {"thread_failed", "item_failed"}
        Whether it ended a thread, or one of the things that a thread looks after.
    error : BaseException
    **facts : object
        Fields of the event, such as ``thread`` and ``item``.
    """
    what = ", ".join(str(fact) for fact in facts.values())
    fields = event(name, **facts, kind=type(error).__name__, reason=words(error))
    trace = error if logger.isEnabledFor(logging.DEBUG) else None
    logger.error("%s: %s", what, words(error), exc_info=trace, extra=fields)


@contextmanager
def contained(thread: str, item: str) -> Iterator[None]:
    """Log what fails inside, and go on: around one of several things, none of which may end the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # that is what it is for
        report("item_failed", error, thread=thread, item=item)
