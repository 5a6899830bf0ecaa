"""Links to directories, which a git forge can show and a site cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.addnodes import pending_xref

if TYPE_CHECKING:
    from sphinx.application import Sphinx

INDEXES = ("README", "index")


def resolve(app: Sphinx, document: nodes.document) -> None:
    """Point a link to a directory at its index page; without one it is text."""
    for link in list(document.findall(pending_xref)):
        if link["reftype"] != "myst" or link.get("refdomain"):
            continue
        _, path = app.env.relfn2path(link["reftarget"].split("#")[0], app.env.docname)
        if not Path(path).is_dir():
            continue
        place = Path(path).relative_to(app.srcdir)
        pages = [str(place / name) for name in INDEXES if str(place / name) in app.env.found_docs]
        if pages:
            link.update_basic_atts({})
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", pages[0], None
        else:
            link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("doctree-read", resolve)
    return {"parallel_read_safe": True}
