"""Cells of notebooks, without what only their check wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

MARK = "# NBVAL_IGNORE_OUTPUT\n"


def unmark(_app: Sphinx, document: nodes.document) -> None:
    """Take nbval's mark off the cells that have it."""
    for cell in document.findall(nodes.literal_block):
        if cell.rawsource.startswith(MARK):
            cell.rawsource = cell.rawsource.removeprefix(MARK)
            cell.children = [nodes.Text(cell.rawsource)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", unmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
