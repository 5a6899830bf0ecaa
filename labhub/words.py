"""Texts, ages and sizes as people read them: the one place that puts a value in words."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

EPOCH = datetime(1970, 1, 1)


class _Escapes(dict[int, str]):
    """A table for `str.translate`, filled as characters are met.

    Hidden are control and format characters (ESC, line breaks, bidi overrides), surrogates, and code points without a
    character. Blanks of any width stay what they are.
    """

    def __missing__(self, code: int) -> str:
        char = chr(code)
        shown = char.isprintable() or unicodedata.category(char) == "Zs"
        self[code] = char if shown else char.encode("unicode_escape").decode()
        return self[code]


_escapes = _Escapes()


def visible(text: object) -> str:
    r"""Return a text on one line, with everything shown that a terminal or a page would obey or hide.

    Control characters, escapes, line breaks and bidi overrides become ``\x1b``, ``\n``, ``\u202e``. Letters, signs and
    units of any script stay as they are. Whatever comes from other people goes through here before a person reads it.

    Parameters
    ----------
    text : object
        Its `str` is taken.

    Examples
    --------
    >>> print(visible("Temp °C\x1b[2J"))
    Temp °C\x1b[2J
    """
    text = str(text)
    return text if text.isascii() and text.isprintable() else text.translate(_escapes)


def one_line(error: object) -> str:
    """Return an error, or another text that we wrote ourselves, on one line: its line breaks become blanks."""
    return visible(" ".join(str(error).split()))


def lines(text: str) -> str:
    """Return a text of several lines with each of them made `visible`."""
    return "\n".join(visible(line) for line in text.split("\n"))


def quoted(value: object) -> str:
    """Return a value as `repr` shows it, cut short if that is long."""
    shown = repr(value)
    return shown if len(shown) < 80 else shown[:76] + "..."


def age(seconds: float) -> str:
    """Put a time span in words: ``5.2 s``, ``42 s``, ``3 min``, ``5 h``, ``2 d``."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for limit, unit, step in ((119.5, "s", 1), (7170, "min", 60), (171_000, "h", 3600)):
        if seconds < limit:
            return f"{seconds / step:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(nbytes: float) -> str:
    """Put a number of bytes in words: ``64 B``, ``8.2 kB``, ``147 kB``, ``1.0 MB``."""
    if abs(nbytes) < 1000:
        return f"{nbytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if abs(nbytes) < 999.5:
            return f"{nbytes:.1f} {unit}" if abs(nbytes) < 99.95 else f"{nbytes:.0f} {unit}"
    return f"{nbytes / 1000:.1f} TB"


def short(number: float) -> str:
    """Put a number into at most six characters: ``0``, ``9.87``, ``12.3k``, ``4.56M``."""
    if number < 10 and number != int(number):
        return f"{number:.2f}"
    for limit, unit, scale in ((1e4, "", 1.0), (1e6, "k", 1e3), (1e9, "M", 1e6), (1e12, "G", 1e9), (1e15, "T", 1e12)):
        if number < limit:
            scaled = number / scale
            return f"{scaled:.0f}{unit}" if not unit or scaled >= 99.95 else f"{scaled:.1f}{unit}"
    return f"{number:.0e}"


def instant(ns: int) -> str:
    """Return a time in ns since the epoch as ISO 8601 in UTC, with all its nine digits."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{(EPOCH + timedelta(seconds=seconds)).isoformat()}.{rest:09d}Z"


def close_names(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return the known names that somebody who mistyped may have meant, the closest first."""
    return difflib.get_close_matches(name, list(known), n=n)


def did_you_mean(name: str, known: Iterable[str], quote: Callable[[str], str] = str) -> str:
    """Return a hint for somebody who mistyped: the closest of the known names, or all of them; empty if none is."""
    names = list(known)
    if close := close_names(name, names):
        return f"did you mean {' or '.join(map(quote, close))}?"
    return f"there are {', '.join(map(quote, names[:8]))}{' ...' if names[8:] else ''}" if names else ""
