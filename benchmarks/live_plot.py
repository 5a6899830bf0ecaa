"""How fast a LivePlot of 4 lines of 2,000 points moves in JupyterLab while a cell is busy, and what a frame costs.

Run it from the repository root: ``python benchmarks/live_plot.py [--json FILE]``. It needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from labhub.errors import BrokerUnreachable
from labhub.hub import stop_broker
from tests.browser.jupyter import chromium, missing, served
from tests.conftest import VARIABLES, wait_until

SECONDS = 5.0

PRODUCER = """
import sys, threading, time, numpy as np, labhub
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
hub = labhub.connect(start=True)
names = ("a", "b", "c", "d")
ps = [hub.producer(n, dtype="f4", shape=(20,), dims="time", sample_rate=1000, units="V") for n in names]
due, k = time.monotonic(), 0
while not done.is_set():
    for i, p in enumerate(ps):
        p.write(np.sin((k * 20 + np.arange(20)) / 300 + i).astype("f4"))
    k += 1
    due += 0.02
    time.sleep(max(0, due - time.monotonic()))
hub.close()
"""

START = f"""
import subprocess, sys, time, labhub
hub = labhub.connect(start=True)
process = subprocess.Popen([sys.executable, "-c", '''{PRODUCER}'''], stdin=subprocess.PIPE)
for name in "abcd":
    hub.wait_for(name, timeout=30)

class Timed(labhub.LivePlot):
    costs = []

    def _step(self):
        begin, before = time.thread_time(), self._frame
        super()._step()
        if self._frame > before:
            self.costs.append(1e3 * (time.thread_time() - begin))

plot = Timed("a", "b", "c", "d", hub=hub, window=2)
plot
"""

BUSY = f"""
import json, numpy as np
Timed.costs.clear()
begin, a = time.monotonic(), np.random.rand(200, 200)
while time.monotonic() - begin < {SECONDS}:
    sum(k * k for k in range(5000))
    a = np.sin(a @ a)
print("measured:" + json.dumps(Timed.costs))
"""

END = """
process.stdin.close()
process.wait(10)
hub.close()
print("the producer", "ended")
"""


def main() -> None:
    """Measure, print a table, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    if missing():
        sys.exit(f"this benchmark needs {missing()}")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="labhub-bench-") as base:
        for name, variable in VARIABLES.items():
            (Path(base) / name).mkdir(mode=0o700)
            os.environ[variable] = str(Path(base) / name)
        try:
            found = measure(Path(base))
        finally:  # the broker outlives the kernel that started it
            with contextlib.suppress(BrokerUnreachable):
                stop_broker()
    print(f"{'figure':<34}{'measured':>10}  target")
    for label, key, target in (
        ("frames drawn per second, busy cell", "frames_per_second", ">= 25"),
        ("frames sent per second", "sent_per_second", "<= 30"),
        ("kernel time per frame, median (ms)", "ms_per_frame_median", "<= 1.5"),
        ("kernel time per frame, 95 % (ms)", "ms_per_frame_p95", ""),
        ("load of the machine (1 min)", "load", ""),
    ):
        print(f"{label:<34}{found[key]:>10.2f}  {target}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(base: Path) -> dict[str, float]:
    """Run the notebook in a browser."""
    with served(base, wait_until) as server, chromium() as open_:
        server.notebook("bench.ipynb", [START, BUSY, END])
        watched = open_(f"{server.url}lab/tree/bench.ipynb?token={server.token}")
        page = watched.page
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        watched.run_cell(0)
        plot = page.locator(".labhub-plot[data-frames]")
        plot.wait_for(timeout=60_000)
        wait_until(lambda: int(plot.get_attribute("data-frames")) > 100, 60, "the first frames")
        busy = page.locator(".jp-CodeCell").nth(1)
        watched.run_cell(1)
        busy.locator(".jp-InputPrompt", has_text="[*]").wait_for()
        begin, first = time.monotonic(), int(plot.get_attribute("data-frames"))
        output = busy.locator(".jp-OutputArea-output", has_text="measured:")
        output.wait_for(timeout=60_000)
        seconds, frames = time.monotonic() - begin, int(plot.get_attribute("data-frames")) - first
        costs = json.loads(output.inner_text().partition(":")[2])
        watched.run_cell(2)
        page.get_by_text("the producer ended").wait_for(timeout=30_000)
        if watched.unexpected():
            sys.exit(f"something went wrong in the page: {watched.unexpected()}")
    return {
        "frames_per_second": frames / seconds,
        "sent_per_second": len(costs) / SECONDS,
        "ms_per_frame_median": statistics.median(costs),
        "ms_per_frame_p95": statistics.quantiles(costs, n=20)[-1],
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
