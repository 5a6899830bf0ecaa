"""Put the table of a torture run into docs/reliability.md: ``python -m tests.faults.publish build/torture.md``."""

from __future__ import annotations

import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
MARK = "<!-- torture -->"


def published(document: str, table: str) -> str:
    """Return the document with the table between its two marks."""
    before, _, after = document.split(MARK)
    return f"{before}{MARK}\n{table.strip()}\n{MARK}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(published(DOCUMENT.read_text(), Path(sys.argv[1]).read_text()))
