"""What a frame costs: of an image in the kernel, and of lines that are hard to draw in a page.

Run it from the repository root: ``python benchmarks/pictures.py [--json FILE]``. The page needs Chromium, playwright.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from labhub.notebook.image import quantised, range_of, reduced
from tests.browser.bare import Bare, bare_server
from tests.browser.hard import LINES
from tests.browser.jupyter import chromium, missing
from tests.browser.test_hard_pictures import message_of

ROUNDS = 30
SIZES = {"640 x 480": (480, 640, 1), "1280 x 960, reduced": (960, 1280, 2)}
DTYPES = ("u1", "u2", ">u2", "u4", "i8", "f4", "f8")


def main() -> None:
    """Measure, print tables, and write the JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    found = {"image_ms": images()}
    if missing():
        print(f"the page is left out: it needs {missing()}")
    else:
        found["page_ms"] = lines()
    for title, figures in found.items():
        print(f"{title} (median)")
        for name, milliseconds in figures.items():
            print(f"  {name:<34}{milliseconds:>8.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def images() -> dict[str, float]:
    """The kernel's time for a frame of each dtype (in ms), from its pixels to the bytes that are sent."""
    rng = np.random.default_rng(0)
    found = {}
    for size, (height, width, factor) in SIZES.items():
        for dtype in DTYPES:
            pixels = (rng.random((height, width)) * 200 + 20).astype(dtype)

            def frame(pixels: np.ndarray = pixels, factor: int = factor) -> None:
                small = reduced(pixels, factor, "mean")
                quantised(small, *range_of(small, None, None, 0.5)).tobytes()

            found[f"{size} {dtype}"] = median_ms(frame)
    return found


def lines() -> dict[str, float]:
    """A page's time from a message to its drawing (in ms), with the waits for animation frames."""
    found = {}
    with bare_server() as url, chromium() as open_:
        for name, values in LINES.items():
            page = open_(f"{url}/live_plot.html").page
            line = {"channel": "x", "name": "value", "label": "x", "unit": ""}
            bare = Bare(page, "live_plot", {"window": 10.0, "share": 1.0, "height": 280, "series": [line]})
            meta, buffers = message_of(values)
            found[name] = median_ms(lambda bare=bare, meta=meta, buffers=buffers: bare.receive(meta, buffers))
            page.close()
    return found


def median_ms(call: Callable[[], None]) -> float:
    """The median time of a call (in ms)."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


if __name__ == "__main__":
    main()
