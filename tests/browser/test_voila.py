"""Voila: a notebook as an application."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.browser.test_widgets import SHOW, START, wait_for_frames

pytestmark = pytest.mark.browser

# Voila's own page asks elsewhere for fonts and for MathJax (and is refused), and cannot load Notebook 7's extension.
KNOWN = [
    re.compile(r"/@fortawesome/fontawesome-free@[^/]*/css/[a-z0-9-]+(\.min)?\.css$"),
    re.compile(r"/mathjax/[\d.]+/es5/latest\.min\.js"),
    re.compile(r"^console: Failed to load resource: net::ERR_FAILED$"),
    re.compile(r'^console: Error: The getter for the shared module.*"shareKey":"@jupyterlab/docregistry"', re.DOTALL),
]


@pytest.mark.skipif(importlib.util.find_spec("voila") is None, reason="needs Voila: pip install voila")
def test_widgets_move_in_voila(jupyter, open_page, screenshots):
    server = jupyter()
    server.notebook("live.ipynb", [START, SHOW])
    watched = open_page(f"{server.url}voila/render/live.ipynb?token={server.token}")
    watched.known += KNOWN
    for widget in ("plot", "image", "browser"):
        wait_for_frames(watched.page, widget, 3)
    watched.page.screenshot(path=screenshots / "voila.png")
