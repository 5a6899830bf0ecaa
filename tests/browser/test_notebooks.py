"""The notebook about live plots, in JupyterLab, where its widgets live; it leaves the pictures that docs/images has."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02-live-plots.ipynb"
SECONDS = 7
"""For how long the plots are let run before they are taken: a window is then full, or nearly."""


def test_the_notebook_about_live_plots(jupyter, open_page, screenshots, wait_until):
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    end = next(k for k, cell in enumerate(cells) if "close()" in cell)
    server = jupyter()
    server.notebook("live.ipynb", cells)
    watched = open_page(f"{server.url}lab/tree/live.ipynb?token={server.token}")
    page = watched.page
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    for k in range(end):
        watched.run_cell(k)
    plot, image = page.locator(".labhub-plot").last, page.locator(".labhub-image").last
    for widget, frames in ((plot, 30 * SECONDS), (image, 20)):
        widget.wait_for(timeout=60_000)
        wait_until(lambda w=widget, n=frames: int(w.get_attribute("data-frames") or 0) >= n, 60, "frames enough")
    plot.screenshot(path=screenshots / "live-plot.png")
    image.screenshot(path=screenshots / "live-image.png")
    for k in range(end, len(cells)):
        watched.run_cell(k)
    page.get_by_text("'default'").wait_for(timeout=60_000)  # the last cell's result
    assert page.locator(".labhub-plot, .labhub-image").count() == 0
    assert not watched.cell_errors()
