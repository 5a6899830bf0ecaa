"""What the magics and the reprs show of text that other people wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import labhub
from labhub.doctor import Finding
from labhub.notebook.display import Findings

ORDERS = "\x1b[2J\x1b]0;owned\x07\u202eabc\n<script>alert(1)</script>"
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.usefixtures("broker")
def test_names_units_and_notes_are_text(run: Callable[[str], Any]) -> None:
    dtype = np.dtype([("[/x]", "f8"), (f"b{ORDERS}", "f8")])
    units = {"[/x]": "[mm]", f"b{ORDERS}": f"°C{ORDERS}"}
    with labhub.connect() as hub, hub.producer("evil", dtype=dtype, units=units, attrs={"note": ORDERS}) as producer:
        producer.write((1.0, 2.0))
        batch = hub["evil"].snapshot()
        things = [
            run("%hub_discover"), run("%hub_info evil"), run("%hub_tail evil"), run("%hub_broker"), hub, hub["evil"],
            producer, hub.status, batch, hub.find("evil"), producer.schema,
        ]  # fmt: skip
        for thing in things:
            assert not OBEYED.search(repr(thing)), type(thing)
            page = getattr(thing, "_repr_html_", str)()
            assert not OBEYED.search(page), type(thing)
            if hasattr(thing, "_repr_html_"):
                assert "<script>" not in page, type(thing)
        assert "[mm]" in repr(things[0])
        assert "°C" in repr(things[0])


def test_findings_are_text() -> None:
    found = Findings([Finding("keys", "problem", f"/a/{ORDERS}", f"of another {ORDERS}", "rm x")])
    assert not OBEYED.search(repr(found))
    assert not OBEYED.search(found._repr_html_())
    assert "<script>" not in found._repr_html_()
