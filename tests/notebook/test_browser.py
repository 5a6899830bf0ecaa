"""HubBrowser without a browser."""

from __future__ import annotations

import pytest

import labhub
from labhub.errors import InvalidArgument


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
