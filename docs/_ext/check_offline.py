"""A page that fetches something from another host is a warning, which fails the build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

logger = logging.getLogger(__name__)

# What a browser loads by itself: not the links that a reader may follow.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*?\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b(?![^>]*\brel=["']?(?:canonical|next|prev|search|index))[^>]*?\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:@import\s+["']?|url\(["']?)(?:https?:)?//[^"')\s]+""",
)


def check(app: Sphinx, error: Exception | None) -> None:
    """Search all pages and style sheets that were written."""
    if error is not None or app.builder.format != "html":
        return
    for path in sorted(p for p in Path(app.outdir).rglob("*") if p.suffix in (".html", ".css")):
        for found in LOADED.findall(path.read_text(encoding="utf-8")):
            logger.warning("%s loads from another host: %s", path.relative_to(app.outdir), found)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
