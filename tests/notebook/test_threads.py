"""No error ends the thread of a widget: what cannot be drawn is skipped and said, and the next frame is drawn."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import labhub
from labhub.notebook import live_image, live_plot
from labhub.notebook.live import LiveWidget


def state(frames):
    return frames[-1][0] if frames else {}


@pytest.fixture
def widgets():
    """Widgets that are closed at the end; their threads were there until then."""
    made = []
    yield made
    for widget in made:
        assert widget.running
        widget.close()
        assert not widget.running


@pytest.mark.parametrize("kind", [ZeroDivisionError, ValueError, MemoryError])
def test_one_bad_frame_among_good_ones(hub, frames, widgets, wait_until, monkeypatch, caplog, kind):
    error = kind("first\nsecond")
    whole = live_image.quantised

    def quantised(pixels, low, high):
        if pixels[0, 0] == 13:
            raise error
        return whole(pixels, low, high)

    monkeypatch.setattr(live_image, "quantised", quantised)
    with hub.producer("cam", dtype="u1", shape=(4, 4)) as producer, caplog.at_level(logging.WARNING, "labhub"):
        widgets.append(labhub.LiveImage("cam", hub=hub))
        producer.write(np.full((4, 4), 1, "u1"))
        wait_until(lambda: any(meta.get("seq") == 0 for meta, _ in frames))
        producer.write(np.full((4, 4), 13, "u1"))
        line = f"{kind.__name__}: first"
        wait_until(lambda: line in state(frames).get("note", ""))
        assert state(frames)["state"] == "live"
        producer.write(np.full((4, 4), 2, "u1"))
        wait_until(lambda: any(meta.get("seq") == 2 for meta, _ in frames))
        assert widgets[0].note.startswith(f"1 not drawn, the last because of {line}")
    assert [record.event for record in caplog.records if record.event == "widget_skipped"]


def test_a_batch_that_cannot_be_drawn(hub, frames, widgets, wait_until, monkeypatch):
    whole = live_plot.Lines.take

    def take(self, batch):
        if batch.data[0] == 13.0:
            raise IndexError("index 7 is out of bounds")
        return whole(self, batch)

    monkeypatch.setattr(live_plot.Lines, "take", take)
    with hub.producer("x", dtype="f8") as producer:
        widgets.append(labhub.LivePlot("x", hub=hub))
        for value in (1.0, 13.0, 2.0):
            producer.write(value)
            wait_until(
                lambda value=value: (
                    any(meta.get("last") == [value] for meta, _ in frames)
                    or "IndexError" in state(frames).get("note", "")
                )
            )
        wait_until(lambda: any(meta.get("last") == [2.0] for meta, _ in frames))
        assert widgets[0].note == "1 not drawn, the last because of IndexError: index 7 is out of bounds"


def test_an_error_of_opening_again_is_shown_and_tried_again(hub, frames, widgets, wait_until, monkeypatch):
    whole, failing = live_plot.Source, [True]

    def source(hub, channel):
        if failing:
            raise OSError("too many open files")
        return whole(hub, channel)

    with hub.producer("x", dtype="f8") as producer:
        widget = labhub.LivePlot("x", hub=hub)
        widgets.append(widget)
        producer.write(1.0)
        wait_until(lambda: any(meta.get("last") == [1.0] for meta, _ in frames))
        monkeypatch.setattr(live_plot, "Source", source)
        widget._view_count = 1
        wait_until(lambda: widget._shown)
        widget._view_count = 0
        wait_until(lambda: widget._trouble == "not shown")
        widget._view_count = 1
        wait_until(lambda: state(frames).get("status") == "OSError: too many open files")
        assert state(frames)["state"] == "gone"
        failing.clear()
        producer.write(2.0)
        wait_until(lambda: state(frames)["state"] == "live" and any(m.get("last") == [2.0] for m, _ in frames))


def test_a_page_that_takes_no_message(hub, frames, widgets, wait_until, monkeypatch):
    whole, broken = LiveWidget.send, [True]

    def send(self, meta, buffers=None):
        if broken:
            raise RuntimeError("the comm is gone")
        whole(self, meta, buffers)

    monkeypatch.setattr(LiveWidget, "send", send)
    with hub.producer("x", dtype="f8") as producer:
        widgets.append(labhub.LivePlot("x", hub=hub))
        producer.write(1.0)
        wait_until(lambda: widgets[0]._skipped)
        broken.clear()
        producer.write(2.0)
        wait_until(lambda: any(meta.get("last") == [2.0] for meta, _ in frames))
        assert "RuntimeError: the comm is gone" in widgets[0].note
