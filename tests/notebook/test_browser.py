"""HubBrowser without a browser."""

from __future__ import annotations

import pytest

import labhub
from labhub.errors import InvalidArgument
from labhub.notebook.rates import RateMeter
from tests.bad_channels import junk_segment, odd_registration


def test_rows_of_channels_and_their_rates(hub, frames, wait_until):
    with hub.producer("b", dtype="f8", units="bar") as producer, hub.producer("a", dtype="u1", shape=(2, 3)):
        widget = labhub.HubBrowser(hub)
        assert repr(widget) == "HubBrowser('default')"

        def row(name):
            rows = frames[-1][0].get("rows", []) if frames else []
            return next((r for r in rows if r["name"] == name), {})

        wait_until(lambda: row("a"))
        assert [r["name"] for r in frames[-1][0]["rows"]] == ["a", "b"]
        assert (row("a")["slot"], row("b")["units"], row("b")["readers"]) == ("uint8[2, 3]", "bar", 0)
        wait_until(lambda: row("b")["rate"] == 0.0)
        with hub.consumer("b"):
            producer.write_many([1.0] * 10)
            wait_until(lambda: row("b")["rate"] > 0 and max(row("b")["rates"]) > 0)
            assert (row("b")["readers"], row("b")["liveness"]) == (1, "alive")
        widget.close()
        assert not widget.running


def test_control_characters_are_shown_on_pages(hub, frames, wait_until):
    field, unit = "a\x1b[2J", "\u202em"
    with hub.producer("a", dtype=[(field, "f8")], units={field: unit}) as producer:
        browser, plot = labhub.HubBrowser(hub), labhub.LivePlot("a", hub=hub)
        wait_until(lambda: plot.series and any(meta.get("rows") for meta, _ in frames))
        row = next(meta["rows"][0] for meta, _ in frames if meta.get("rows"))
        assert (row["slot"], row["units"]) == (r"{a\x1b[2J}", r"\u202em")
        assert (plot.series[0]["label"], plot.series[0]["unit"]) == (r"a\x1b[2J", r"\u202em")
        producer.write((1.0,))
        figure = hub["a"].snapshot().plot()
        assert figure.axes[0].get_ylabel() == r"a\x1b[2J (\u202em)"
        browser.close()
        plot.close()


def test_a_pattern_and_a_hub_that_is_closed(hub, frames, wait_until):
    with pytest.raises(InvalidArgument):
        labhub.HubBrowser(hub, pattern=3)
    widget = labhub.HubBrowser(hub, "pump.*")
    assert repr(widget) == "HubBrowser('default', pattern='pump.*')"
    wait_until(lambda: frames)
    hub.close()
    wait_until(lambda: not widget.running)
    assert frames[-1][0]["state"] == "closed"
    widget.close()


def test_one_broken_segment_and_one_odd_registration_leave_the_others_their_rows(hub, frames, wait_until):
    with hub.producer("a", dtype="f8"), hub.producer("bad", dtype="f8"), hub.producer("z", dtype="f8"):
        with junk_segment(hub, "bad"), odd_registration("odd"):
            widget = labhub.HubBrowser(hub)
            wait_until(lambda: frames and len(frames[-1][0].get("rows", [])) == 4)
            rows = {row["name"]: row for row in frames[-1][0]["rows"]}
            assert rows["a"]["liveness"] == rows["z"]["liveness"] == "alive"
            assert rows["bad"]["liveness"].startswith("unreadable: ")
            assert rows["bad"]["rate"] is None
            assert rows["odd"]["slot"] == "undeclared"
            assert widget.running
        widget.close()


def test_the_rates_of_the_others_are_there_beside_a_broken_segment(hub):
    meter = RateMeter(hub.name)
    with hub.producer("a", dtype="f8") as good, hub.producer("bad", dtype="f8"):
        good.write(1.0)
        with junk_segment(hub, "bad"):
            assert meter.measure("bad") is None
            assert meter.measure("a").per_second > 0
