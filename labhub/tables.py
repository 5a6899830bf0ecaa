"""Tables in plain text and in HTML, which every repr shares. Each cell is shown as text, whatever is in it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from labhub.words import visible

Rows = Iterable[Sequence[str]]


def text_table(head: Sequence[str], rows: Rows) -> str:
    """Return a table in plain text, its columns as wide on the screen as they need to be."""
    lines = [[visible(cell) for cell in line] for line in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(_padded, line, widths)).rstrip() for line in lines)


def text_facts(facts: Rows) -> str:
    """Return names and values in plain text, one pair a line."""
    pairs = [(visible(key), visible(value)) for key, value in facts]
    width = max((_width(key) for key, _ in pairs), default=0)
    return "\n".join(f"  {_padded(key, width)}  {value}".rstrip() for key, value in pairs)


def _width(text: str) -> int:
    """Cells of a terminal that a text takes: two for each Chinese character, none for a combining accent."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def html_table(head: Sequence[str], rows: Rows) -> str:
    """Return a table in HTML, every cell escaped; without a head if every title is empty."""

    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(f'<{tag} style="text-align:left">{html.escape(visible(c))}</{tag}>' for c in cells)
            + "</tr>"
        )

    top = f"<thead>{line(head, 'th')}</thead>" if any(head) else ""
    return f"<table>{top}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def html_facts(title: str, facts: Rows) -> str:
    """Return a title and a table of names and values, if there are any; everything escaped."""
    rows = list(facts)
    return f"<b>{html.escape(visible(title))}</b>{html_table(('', ''), rows) if rows else ''}"
