"""Widgets in JupyterLab and Notebook 7: they move while a cell is busy, and nothing goes wrong in the page."""

from __future__ import annotations

from pathlib import Path

import pytest

SOURCES = Path(__file__).with_name("sources.py")

START = f"""
import subprocess, sys, labhub
hub = labhub.connect(start=True)
process = subprocess.Popen([sys.executable, {str(SOURCES)!r}], stdin=subprocess.PIPE)
for name in ("pump.pressure", "pump.temperature", "ecg", "cam"):
    hub.wait_for(name, timeout=30)
plot = labhub.LivePlot("pump.pressure", "pump.temperature", ("ecg", "lead 0"), hub=hub, window=5)
plot
"""

BUSY = """
import time, numpy as np
begin, n = time.monotonic(), 0
a = np.random.rand(200, 200)
while time.monotonic() - begin < 5:
    n += sum(k * k for k in range(5000))
    a = np.sin(a @ a)
print("busy cell done")
"""

END = """
process.stdin.close()
process.wait(10)
labhub.LivePlot
hub.close()
from labhub.hub import stop_broker
stop_broker().name
"""

PLACES = {"lab": "lab/tree/live.ipynb", "notebook": "notebooks/live.ipynb"}


@pytest.mark.parametrize("place", PLACES)
def test_widgets_move_while_a_cell_is_busy(jupyter, open_page, screenshots, place):
    jupyter.notebook("live.ipynb", [START, BUSY, END])
    watched = open_page(f"{jupyter.url}{PLACES[place]}?token={jupyter.token}")
    page = watched.page
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    watched.run_cell(0)
    plot = page.locator(".labhub-plot[data-frames]").first
    page.wait_for_timeout(12000)
    page.screenshot(path=screenshots / "debug.png")
    print(watched.errors)
    print(watched.page.locator(".jp-OutputArea").all_inner_texts())
    plot.wait_for(timeout=2_000)
    watched.run_cell(1)
    page.wait_for_timeout(1500)
    first = int(plot.get_attribute("data-frames"))
    page.wait_for_timeout(3000)
    print("frames in 3 s busy:", int(plot.get_attribute("data-frames")) - first)
    page.screenshot(path=screenshots / f"{place}-light.png")
    page.wait_for_selector("text=busy cell done", timeout=30_000)
    watched.run_cell(2)
    page.wait_for_selector("text='default'", timeout=30_000)
    page.screenshot(path=screenshots / f"{place}-end.png")
