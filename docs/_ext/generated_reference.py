"""Reference pages that come from the program itself: its commands and its magics."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from labhub.notebook.magics.broker import BrokerMagics
from labhub.notebook.magics.channels import ChannelMagics
from labhub.notebook.magics.producers import ProducerMagics
from labhub.notebook.magics.recordings import RecordingMagics

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class Commands(SphinxDirective):
    """``{labhub-commands}``: every command and option, from the application."""

    def run(self) -> list[nodes.Node]:
        """Return what Typer writes about the application."""
        command = [sys.executable, "-m", "typer", "labhub.cli.app", "utils", "docs", "--name", "labhub"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return self.parse_text_to_nodes(text.partition("\n")[2], allow_section_headings=True)


class Magics(SphinxDirective):
    """``{labhub-magics}``: every magic and option, from the extension."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each magic, with what ``?`` shows of it."""
        docs = {
            f"{'%' if kind == 'line' else '%%'}{name}": inspect.getdoc(getattr(group, method))
            for group in (BrokerMagics, ChannelMagics, ProducerMagics, RecordingMagics)
            for kind, magics in group.magics.items()
            for name, method in magics.items()
        }
        # The parser writes the usage as a literal block of reStructuredText.
        parts = [f"## `{name}`\n\n```text\n{doc.removeprefix('::').strip()}\n```\n" for name, doc in docs.items()]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry point."""
    app.add_directive("labhub-commands", Commands)
    app.add_directive("labhub-magics", Magics)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
