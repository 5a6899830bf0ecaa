"""Whatever numbers come, a page goes on, and what it writes at an axis or under the pointer is right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest

import labhub
from labhub.hub import connect, named_broker
from labhub.notebook.columns import Columns
from labhub.notebook.live import LiveWidget
from labhub.notebook.live_plot import _text
from tests.browser.bare import Bare, bare_server
from tests.browser.hard import IMAGES, LINES
from tests.browser.jupyter import Page
from tests.browser.test_widgets import PLACES, open_notebook

pytestmark = pytest.mark.browser

S = 1_000_000_000
BEGIN = 1_795_000_000 * S
DEADLINE = 5.0
"""A page that hangs answers nothing; one that does not answers within this time (in seconds)."""

TEN_LINES = list(LINES)[:10]
TEN_IMAGES = list(IMAGES)[:10]


@pytest.fixture
def bare(open_page) -> Iterator[Callable[[str], Page]]:
    """Open the bare page of a widget; always the same page, because a browser takes seconds to start."""
    pages: list[Page] = []
    with bare_server() as url:

        def open_bare(name: str) -> Page:
            address = f"{url}/{name}.html"
            if pages:
                pages[0].goto(address)
            else:
                pages.append(open_page(address).page)
                pages[0].set_default_timeout(1000 * DEADLINE)
            return pages[0]

        yield open_bare


def plot_page(bare, **state):
    page = bare("live_plot")
    line = {"channel": "x", "name": "value", "label": "x", "unit": "Hz"}
    return Bare(page, "live_plot", {"window": 10.0, "share": 1.0, "height": 280, "series": [line], **state})


def message_of(values, begin_ns=BEGIN, window=10.0):
    """The message of a plot whose window is filled with these values."""
    columns = Columns(1, 1000, round(window * S))
    time_ns = begin_ns + np.linspace(0, window * S * 0.999, len(values)).astype("i8")
    columns.add(slice(0, 1), time_ns, values[:, None])
    meta = {
        "n": columns.points.shape[1],
        "at": 2 * (columns.end % columns.n_columns),
        "t0": str((columns.end - columns.n_columns) * columns.width),
        "dt": columns.width / 2e9,
        "base": [_text(columns.base[0])],
        "last": [None],
        "losses": [],
        "lost": 0,
    }
    return meta, [columns.points.tobytes()]


def ticks(bare):
    """The numbers at the y axis, each with its place in the page; and what they are differences from."""
    texts = bare.drawn()
    labels = [(t, y) for t, x, y, right in texts if right]
    (axis,) = [t for t, *_ in texts if t.startswith("x") and "(Hz)" in t]
    found = re.search(r"([−+]) (\S+) \(Hz\)", axis)
    start = Fraction(0) if found is None else Fraction(found[2]) * (1 if found[1] == "−" else -1)
    return [(start + Fraction(t), y, t) for t, y in labels]


def test_the_ticks_of_each_line_are_numbers_where_they_belong(bare):
    for name, values in LINES.items():
        page = plot_page(bare)
        page.receive(*message_of(values))
        found = ticks(page)
        assert 2 <= len(found) <= 12, name
        assert len({label for *_, label in found}) == len(found), name
        numbers = [number for number, *_ in found]
        steps = {b - a for a, b in pairwise(numbers)}
        assert len(steps) == 1, f"{name}: the steps between the ticks are equal"
        places = np.diff([y for _, y, _ in found])
        assert np.ptp(places) <= 2, name
        assert (places < 0).all(), name
        finite = [Fraction(v.item()) for v in values if np.isfinite(v)]
        if finite:  # every value is between the ticks, or a step or so beyond
            (step,) = steps
            assert numbers[0] - 2 * step <= min(finite) <= max(finite) <= numbers[-1] + 2 * step, name
        assert page.page.evaluate("1 + 1") == 2


def test_one_page_is_fed_with_all_lines_one_after_the_other_and_zoomed(bare):
    page = plot_page(bare)
    for values in LINES.values():
        page.receive(*message_of(values))
        box = page.page.locator(".u-over").bounding_box()
        for _ in range(6):  # until it goes no further
            page.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50)
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 50)
            page.page.mouse.up()
        page.page.locator(".labhub-state", has_text="zoomed").wait_for()
        page.page.get_by_role("button", name="Hold y").click()
        page.page.get_by_role("button", name="Free y").click()
        page.page.get_by_role("button", name="Reset").click()
        page.page.locator(".labhub-state", has_text=re.compile("^live")).wait_for()


def test_the_times_at_the_axis_are_right_and_each_another_one(bare):
    clock = re.compile(r"^(?:(\d\d-\d\d) )?(\d\d):(\d\d):(\d\d(?:\.\d+)?)$")
    for begin_ns, window in product((0, -(10**18), BEGIN + 123_456_789, 9 * 10**18), (0.001, 10.0, 1e6)):
        page = plot_page(bare, window=window)
        page.receive(*message_of(np.sin(np.arange(2000) / 100), begin_ns, window))
        found = [(clock.match(t), x) for t, x, *_ in page.drawn() if clock.match(t)]
        assert 3 <= len(found) <= 12, (begin_ns, window)
        assert len({match[0] for match, _ in found}) == len(found), (begin_ns, window)
        assert np.ptp(np.diff([x for _, x in found])) <= 2, (begin_ns, window)
        if window == 0.001:
            seconds = [Fraction(match[4]) for match, _ in found]
            assert all(0 <= (s - Fraction(begin_ns, S)) % 60 <= Fraction(1, 1000) for s in seconds)


VALUES = {
    "100000000000000001 Hz": np.full(100, 10**17 + 1),
    "18446744073709551615 Hz": np.full(100, 2**64 - 1, "u8"),
    "123456 Hz": np.full(100, 123456),
    "1.7976931348623157e308 Hz": np.full(100, 1.7976931348623157e308),
    "1.0000000000000002 Hz": np.where(np.arange(100) % 2, 1.0, np.nextafter(1, 2)),
}


def test_the_value_under_the_pointer_of_a_line(bare):
    for words, values in VALUES.items():
        page = plot_page(bare)
        page.receive(*message_of(values))
        box = page.page.locator(".u-over").bounding_box()
        page.page.mouse.move(box["x"] + 1, box["y"] + 50)
        page.page.locator(".labhub-legend", has_text=words).wait_for()
        page.page.mouse.move(1, 1)


def test_what_is_odd_stands_beside_the_state(bare):
    page = plot_page(bare)
    meta, buffers = message_of(LINES["zero"])
    page.receive({**meta, "note": "x: its times fell by 1:00:00; the time axis began anew"}, buffers)
    state = page.page.locator(".labhub-state")
    assert state.inner_text() == "live; x: its times fell by 1:00:00; the time axis began anew"
    page.receive({**meta, "note": "", "lost": 3}, buffers)
    assert state.inner_text() == "live, lost 3"


@pytest.fixture
def sent(monkeypatch) -> list[tuple[dict, list]]:
    """What widgets of this process send."""
    sent: list[tuple[dict, list]] = []
    monkeypatch.setattr(LiveWidget, "send", lambda self, meta, buffers=None: sent.append((meta, buffers or [])))
    return sent


def image_page(bare, sent, wait_until, pixels, unit="counts", **options):
    """A bare page that shows what a real LiveImage sends of one frame; with the widget's trouble, if it has any."""
    sent.clear()
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub, hub.producer("cam", dtype=pixels.dtype, shape=pixels.shape, units=unit) as producer:
            producer.write(pixels)
            widget = labhub.LiveImage("cam", hub=hub, **options)
            wait_until(lambda: any(buffers for _, buffers in sent), 10, "a frame")
            state = {name: getattr(widget, name) for name in ("cmap", "vmin", "vmax", "unit", "title")}
            note = widget.note
            widget.close()
    shown = Bare(bare("live_image"), "live_image", state)
    shown.receive(*next(message for message in sent if message[1]))
    return shown, note


def point_at(shown, column, row):
    """Move the pointer to a pixel; returns what is written under the image."""
    canvas = shown.page.locator(".labhub-frame")
    box = canvas.bounding_box()
    width, height = canvas.evaluate("c => [c.width, c.height]")
    shown.page.mouse.move(
        box["x"] + box["width"] * (column + 0.5) / width, box["y"] + box["height"] * (row + 0.5) / height
    )
    return shown.page.locator(".labhub-readout").inner_text()


def test_an_image_is_drawn_whatever_its_pixels(bare, sent, wait_until):
    for name, pixels in IMAGES.items():
        shown, note = image_page(bare, sent, wait_until, pixels)
        assert not note, name
        text = point_at(shown, 3, 1)
        assert text.startswith("column 3, row 1: "), name
        assert not {"NaN", "Infinity"} & set(text.split()), name
        low, high = (shown.page.locator("input").nth(k).input_value() for k in (0, 1))
        assert float(low) <= float(high), name


def test_the_pixel_under_the_pointer_is_itself(bare, sent, wait_until):
    pixels = (np.arange(48 * 64).reshape(48, 64) * 21 % 4001).astype("u2")
    shown, _ = image_page(bare, sent, wait_until, pixels)
    for column, row in ((0, 0), (63, 47), (17, 31)):
        assert point_at(shown, column, row) == f"column {column}, row {row}: {pixels[row, column]} counts"


def test_a_mean_and_a_level_say_that_they_are_not_the_pixel(bare, sent, wait_until):
    pixels = np.tile(np.arange(64, dtype="u2") * 100, (48, 1))
    shown, _ = image_page(bare, sent, wait_until, pixels, max_width=16)
    text = point_at(shown, 2, 1)
    assert re.fullmatch(r"column 8–11, row 4–7: ≈ 9[45]\d(\.\d+)? counts \(mean of 4 × 4 pixels\)", text)


def test_a_wide_whole_number_is_a_level_until_the_kernel_tells_it(bare, sent, wait_until):
    pixels = np.arange(256, dtype="u8").reshape(16, 16) + np.uint64(2**63)
    shown, _ = image_page(bare, sent, wait_until, pixels)
    assert "≈ 9223372036854776000 counts" in point_at(shown, 3, 1)
    assert shown.page.evaluate("window.model.sent.at(-1)") == {"pointer": [3, 1]}
    meta, buffers = next(message for message in sent if message[1])
    shown.receive({**meta, "pixel": {"at": [3, 1], "texts": [str(2**63 + 19)]}}, buffers)
    assert point_at(shown, 3, 1) == "column 3, row 1: 9223372036854775827 counts"


SHOW_LINE = """
import labhub, numpy as np, time
from tests.browser.hard import LINES, IMAGES
hub = labhub.connect(start=True)
lines, images = {lines!r}, {images!r}
producers = [hub.producer(f"line{{k}}", dtype=LINES[name].dtype, capacity=1024) for k, name in enumerate(lines)]
producers += [hub.producer(f"image{{k}}", like=IMAGES[name]) for k, name in enumerate(images)]

def feed(k):
    name = [*lines, *images][k]
    if name in LINES and k < len(lines):
        for value in LINES[name]:
            producers[k].write(value)
        return labhub.LivePlot(f"line{{k}}", hub=hub, title=name, height=200)
    producers[k].write(IMAGES[name])
    return labhub.LiveImage(f"image{{k - len(lines)}}", hub=hub, title=name)
"""


def test_a_real_page_never_hangs(jupyter, open_page, screenshots):
    cells = [SHOW_LINE.format(lines=TEN_LINES, images=TEN_IMAGES)]
    cells += [f"feed({k})" for k in range(len(TEN_LINES) + len(TEN_IMAGES))]
    cells += ["for producer in producers: producer.close()\nhub.close(); print('all', 'closed')"]
    watched = open_notebook(jupyter(), open_page, PLACES["lab"][0], cells)
    page = watched.page
    watched.run_cell(0)
    for k in range(len(TEN_LINES) + len(TEN_IMAGES)):
        watched.run_cell(k + 1)
        kind = "plot" if k < len(TEN_LINES) else "image"
        widget = page.locator(".jp-CodeCell").nth(k + 1).locator(f".labhub-{kind}")
        widget.and_(page.locator("[data-frames]")).wait_for(timeout=30_000)
        page.wait_for_function("() => new Promise(requestAnimationFrame)", timeout=1000 * DEADLINE)
        assert widget.locator(".labhub-state").inner_text(timeout=1000 * DEADLINE).startswith("live")
        if k in (0, 3, 9, 15):
            widget.screenshot(path=screenshots / f"hard-{kind}-{k}.png")
    watched.run_cell(len(cells) - 1)
    page.get_by_text("all closed").wait_for(timeout=30_000)
    assert not watched.cell_errors()
