"""Tables in plain text and in HTML, and numbers in words; what every repr shares."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

Rows = Iterable[Sequence[str]]

STEPS = ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600))


def text_table(head: Sequence[str], rows: Rows) -> str:
    """Return a table in plain text, its columns as wide as they need to be."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def text_facts(facts: Rows) -> str:
    """Return names and values in plain text, one pair a line."""
    pairs = [(key, value) for key, value in facts]
    width = max((len(key) for key, _ in pairs), default=0)
    return "\n".join(f"  {key:<{width}}  {value}".rstrip() for key, value in pairs)


def html_table(head: Sequence[str], rows: Rows) -> str:
    """Return a table in HTML, every cell escaped; without a head if every title is empty."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align:left">{html.escape(c)}</{tag}>' for c in cells) + "</tr>"

    top = f"<thead>{line(head, 'th')}</thead>" if any(head) else ""
    return f"<table>{top}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def html_facts(title: str, facts: Rows) -> str:
    """Return a title and a table of names and values, if there are any; everything escaped."""
    rows = list(facts)
    return f"<b>{html.escape(title)}</b>{html_table(('', ''), rows) if rows else ''}"


def age(seconds: float) -> str:
    """Put an age in words."""
    for limit, unit, step in STEPS:
        if seconds < limit:
            return f"{seconds / step:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(nbytes: float) -> str:
    """Put a number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(nbytes) < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
