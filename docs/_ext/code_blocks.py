"""Code as a reader wants it, without what only its tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

IGNORED_BY_NBVAL = "# NBVAL_IGNORE_OUTPUT\n"


def clean(_app: Sphinx, document: nodes.document) -> None:
    """Take off nbval's mark, and the empty line that ends an example for doctest."""
    for block in document.findall(nodes.literal_block):
        code = block.astext().removeprefix(IGNORED_BY_NBVAL).rstrip("\n")
        if code != block.astext():
            block.rawsource = code  # what the highlighter takes
            block.children = [nodes.Text(code)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", clean)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
