"""Widgets in JupyterLab and Notebook 7: they move while a cell is busy, and nothing goes wrong in the page."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

SOURCES = Path(__file__).with_name("sources.py")

START = f"""
import subprocess, sys, labhub
hub = labhub.connect(start=True)
process = subprocess.Popen([sys.executable, {str(SOURCES)!r}], stdin=subprocess.PIPE)
for name in ("pump.pressure", "pump.temperature", "ecg", "cam"):
    hub.wait_for(name, timeout=30)
"""

SHOW = """
display(labhub.LivePlot("pump.pressure", "pump.temperature", ("ecg", "lead 0"), hub=hub, window=5))
display(hub["cam"].image(cmap="viridis"))
display(labhub.HubBrowser(hub))
"""

BUSY = """
import time, numpy as np
begin, a = time.monotonic(), np.random.rand(200, 200)
while time.monotonic() - begin < 5:
    sum(k * k for k in range(5000))
    a = np.sin(a @ a)
print("busy cell", "done")
"""

END = """
process.stdin.close()
print("the producer", "ended" if process.wait(10) == 0 else "failed")
"""

KEEP = """
kept = hub.producer("kept", like=0.0)  # in all that the table of channels shows, also when the others have ended
"""

PLACES = {"lab": ("lab/tree/live.ipynb", "Light"), "notebook": ("notebooks/live.ipynb", "Dark")}
BUSY_CELL = 2

HASH = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let hash = 0;
  for (let i = 0; i < data.length; i += 3) hash = (hash * 31 + data[i]) | 0;
  return hash;
}"""


def open_notebook(jupyter, open_page, place, cells):
    jupyter.notebook("live.ipynb", cells)
    watched = open_page(f"{jupyter.url}{place}?token={jupyter.token}")
    watched.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    return watched


def wait_for_frames(page, widget, more):
    """Wait until a widget has drawn so many frames more."""
    selector = f".labhub-{widget}[data-frames]"
    page.wait_for_selector(selector, timeout=60_000)
    page.wait_for_function(
        """([selector, until]) => Number(document.querySelector(selector).dataset.frames) >= until""",
        arg=[selector, int(page.get_attribute(selector, "data-frames")) + more],
        timeout=30_000,
    )


def is_busy(page):
    return page.locator(".jp-CodeCell").nth(BUSY_CELL).locator(".jp-InputPrompt").first.inner_text() == "[*]:"


@pytest.mark.parametrize("place", PLACES)
def test_widgets_move_while_a_cell_is_busy(jupyter, open_page, screenshots, place):
    address, theme = PLACES[place]
    watched = open_notebook(jupyter(theme=theme), open_page, address, [START, SHOW, BUSY, END])
    page = watched.page
    watched.run_cell(0)
    watched.run_cell(1)
    for widget in ("plot", "image", "browser"):
        wait_for_frames(page, widget, 2)

    watched.run_cell(BUSY_CELL)
    seen = {"plot canvas": set(), "image canvas.labhub-frame": set()}
    for _ in range(4):
        wait_for_frames(page, "plot", 3)
        wait_for_frames(page, "image", 3)
        for canvas, hashes in seen.items():
            hashes.add(page.eval_on_selector(f".labhub-{canvas}", HASH))
    assert is_busy(page)
    assert {canvas: len(hashes) for canvas, hashes in seen.items()} == dict.fromkeys(seen, 4)
    page.wait_for_selector("text=busy cell done", timeout=30_000)

    wait_for_frames(page, "browser", 3)
    page.locator(".labhub-frame").hover()
    page.wait_for_selector("text=counts")
    page.screenshot(path=screenshots / f"{place}-{theme.lower()}.png")
    if place == "lab":
        page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        page.wait_for_selector("body[data-jp-theme-light='false']", state="attached")
        wait_for_frames(page, "plot", 10)
        page.screenshot(path=screenshots / "lab-dark.png")

    watched.run_cell(3)
    page.wait_for_selector("text=the producer ended", timeout=30_000)
    page.wait_for_selector(".labhub-plot .labhub-state[data-state='gone']", timeout=30_000)
    page.wait_for_selector("text=cam: producer gone (ended)")
    assert not watched.cell_errors()


def test_the_buttons_of_a_plot_and_a_notebook_that_is_opened_again_without_its_kernel(jupyter, open_page, screenshots):
    server = jupyter(save_widgets=True)
    watched = open_notebook(server, open_page, PLACES["lab"][0], [START, SHOW, KEEP, END])
    page = watched.page
    watched.run_cell(0)
    watched.run_cell(2)
    watched.run_cell(1)
    wait_for_frames(page, "plot", 10)
    plot = page.locator(".labhub-plot")
    box = page.locator(".labhub-plot .u-over").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=5)
    page.mouse.up()
    plot.locator("text=zoomed").wait_for()
    page.screenshot(path=screenshots / "lab-zoomed.png")
    plot.get_by_role("button", name="Reset").click()
    wait_for_frames(page, "plot", 2)
    plot.get_by_role("button", name="Pause").click()
    plot.locator(".labhub-state", has_text="paused").wait_for()
    plot.get_by_role("button", name="Resume").click()
    plot.locator("select").select_option("0.2")
    wait_for_frames(page, "plot", 5)
    image = page.locator(".labhub-image")
    image.locator("input").first.fill("500")
    image.locator("input").first.press("Enter")
    image.locator("select").select_option("magma")
    wait_for_frames(page, "image", 5)

    watched.run_cell(3)
    page.wait_for_selector("text=the producer ended", timeout=30_000)
    page.keyboard.press("Control+s")
    saved = server.root / "live.ipynb"
    page.wait_for_function("() => !document.querySelector('.lm-TabBar-tab.jp-mod-dirty')", timeout=30_000)
    assert "data:image/png;base64," in saved.read_text()
    shut_kernels(server)
    page.goto("about:blank")
    page.goto(f"{server.url}{PLACES['lab'][0]}?token={server.token}&reset", timeout=60_000)
    page.wait_for_selector(".labhub-plot img.labhub-picture", timeout=60_000)
    page.wait_for_selector(".labhub-browser td >> text=kept")
    page.screenshot(path=screenshots / "lab-reopened.png")


def shut_kernels(server):
    """End every session of a server, as its user would in the list of kernels."""

    def call(path, method="GET"):
        headers = {"Authorization": f"token {server.token}"}
        request = urllib.request.Request(f"{server.url}api/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    for session in json.loads(call("sessions")):
        call(f"sessions/{session['id']}", "DELETE")
