"""What is logged has a name and fields, for programs, and words, for people; and no flood of it fills a disk.

labhub logs through the standard `logging`, below the logger ``"labhub"``. A record's attribute ``event`` is its stable
name, such as ``"channel_registered"``, and ``fields`` a dict of plain values; docs/reliability.md lists them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from labhub.words import visible

BURST = 20
"""So many records of one event get through in each `WINDOW`."""
WINDOW = 10.0
"""In seconds."""


def event(name: str, **fields: object) -> dict[str, Any]:
    """Return the ``extra`` of a logging call: the event's name, and its facts as plain values, without secrets."""
    return {"event": name, "fields": fields}


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, that lets no event flood the log (see `Sieve`)."""
    logger = logging.getLogger(name)
    if not any(isinstance(f, Sieve) for f in logger.filters):
        logger.addFilter(Sieve())
    return logger


class Sieve(logging.Filter):
    """Lets `BURST` records of each event through in each `WINDOW`; the next one that passes says what was held back.

    Whoever may send messages to a broker may cause records, and must not fill its disk with them.

    Parameters
    ----------
    clock : callable
        Returns the time (in seconds).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes; if others of its event did not, it gets the field ``suppressed``."""
        name = getattr(record, "event", record.msg)
        now = self._clock()
        began, seen = self._windows.get(name, (now, 0))
        if now - began >= WINDOW:
            suppressed = seen - BURST
            began, seen = now, 0
            if suppressed > 0 and hasattr(record, "fields"):
                record.fields = record.fields | {"suppressed": suppressed}
        self._windows[name] = began, seen + 1
        return seen < BURST


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    Its names are ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``event`` (null for a record without one),
    ``message``, ``fields``, and ``traceback`` where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None),
            "message": record.getMessage(),
            "fields": getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        try:
            text = msgspec.json.encode(line, enc_hook=str).decode()
        except UnicodeEncodeError:  # a file name that is no UTF-8, for example
            text = json.dumps(line, default=str)
        # The same JSON, but a terminal that shows it obeys nothing in it.
        return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class TextFormatter(logging.Formatter):
    """Formats a record as one line for people; control characters in it are shown, not sent to the terminal.

    A traceback follows on lines of its own, which are indented: nothing that somebody sends can look like a record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        lines = [visible(f"[{record.levelname}] {record.name}: {record.getMessage()}")]
        if record.exc_info:
            lines += [f"    {visible(line)}" for line in self.formatException(record.exc_info).splitlines()]
        return "\n".join(lines)
