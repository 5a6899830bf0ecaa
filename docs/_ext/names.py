"""Names in docstrings: which are labhub's types, what one in backticks leads to, and that every public one is there."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util import logging
from sphinx.util.inspect import signature, stringify_signature
from sphinx.util.nodes import make_refnode
from traitlets import HasTraits

import labhub
import labhub.errors
import labhub.hub

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)


def types() -> dict[str, str]:
    """Return the types that docstrings name, for numpydoc to make links of; `resolve` knows where each is."""
    beside = {"Batches", "Datasets", "GapFiller", "ReadSlot", "WriteSlot"}
    # The dot: numpydoc makes a link only where name and target differ.
    return {name: f".{name}" for name in {*labhub.__all__, *labhub.hub.__all__, *errors(), *beside}}


def errors() -> set[str]:
    """Return the names of all classes of errors."""
    found = vars(labhub.errors).items()
    return {name for name, value in found if isinstance(value, type) and value.__module__ == "labhub.errors"}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Find what a name in backticks means; one that is nothing public, as a parameter's, is emphasised."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target = node["reftarget"]
    objects = {name: entry for name, entry in env.domains.python_domain.objects.items() if not entry.aliased}
    name = find(target, f"{node.get('py:module')}.{node.get('py:class')}", objects)
    # An attribute is described in the text of its class.
    name = name or find(target.rpartition(".")[0], "", objects)
    if name is not None:
        entry = objects[name]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, name)
    return nodes.emphasis(target, target) if target.isidentifier() else None


def find(target: str, scope: str, objects: Collection[str]) -> str | None:
    """Return the full name of what is meant: a member of the class where it is said, or whatever is unique."""
    if f"{scope}.{target}" in objects:
        return f"{scope}.{target}"
    found = [name for name in objects if target and f".{name}".endswith(f".{target}")]
    if "." not in target:  # a class or a function; the members of other classes are not meant
        found = [name for name in found if name.removesuffix(target).islower()]
    return found[0] if len(found) == 1 else None


def signature_of(
    _app: Sphinx, _what: str, _name: str, obj: object, _options: object, _signature: str, _returned: str
) -> tuple[str, None] | None:
    """Show no arguments of a class that its reader does not make: an error, or what another call returns."""
    if not isinstance(obj, type):
        return None
    if "ade by" in (obj.__doc__ or "") or issubclass(obj, Exception):
        return "", None
    if issubclass(obj, HasTraits):  # whose metaclass hides the arguments of __init__
        return stringify_signature(signature(obj.__init__, bound_method=True), show_annotation=False), None
    return None


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of a public name that no page documents."""
    missing = {f"labhub.{name}" for name in labhub.__all__ if name != "__version__"}
    missing |= {f"labhub.errors.{name}" for name in errors()}
    for name in sorted(missing - env.domains.python_domain.objects.keys()):
        logger.warning("%s is public, and no page of docs/reference documents it", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.connect("autodoc-process-signature", signature_of)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", check_complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
