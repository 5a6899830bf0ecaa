"""Batch.plot: a figure for a paper."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.errors import InvalidArgument
from labhub.schema import Schema

S = 1_000_000_000


def batch_of(schema, data, period_ns=S):
    headers = np.zeros(len(data), SLOT_HEADER)
    headers["timestamp_ns"] = 1_795_000_000 * S + np.arange(len(data)) * period_ns
    headers["nbytes"] = schema.slot_nbytes
    return Batch("rig", schema, data, headers)


def test_axes_are_labelled_with_units_and_each_unit_has_a_panel():
    schema = Schema.infer(
        dtype=[("p", "f8"), ("q", "f8"), ("t", "f4"), ("name", "U4")], units={"p": "bar", "q": "bar", "t": "K"}
    )
    figure = batch_of(schema, np.zeros(5, schema.dtype)).plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["value (bar)", "t (K)"]
    assert figure.axes[-1].get_xlabel() == "time (s) after 2026-11-18 11:06:40.000 UTC"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["p", "q"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_samples_of_blocks_have_their_own_times():
    schema = Schema.infer(dtype="f4", shape=(10, 2), dims=("time", "lead"), sample_rate=10.0, units="mV")
    figure = batch_of(schema, np.zeros((3, 10, 2), "f4")).plot("lead 1")
    (line,) = figure.axes[0].lines
    assert np.allclose(line.get_xdata(), np.arange(30) / 10)
    assert figure.axes[0].get_ylabel() == "lead 1 (mV)"


def test_a_single_value_is_named_after_its_channel():
    schema = Schema.infer(dtype="f8", units="bar")
    assert batch_of(schema, np.zeros(2)).plot().axes[0].get_ylabel() == "rig (bar)"


def test_nothing_to_draw():
    schema = Schema.infer(dtype="f8")
    with pytest.raises(InvalidArgument, match="is empty"):
        batch_of(schema, np.zeros(0)).plot()
    with pytest.raises(InvalidArgument, match="what can be drawn: value"):
        batch_of(schema, np.zeros(1)).plot("x")


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib" or n == "labhub.datablock.figure"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^Batch.plot\(\) needs matplotlib: pip install 'labhub\[plot\]'$"):
        batch_of(Schema.infer(dtype="f8"), np.zeros(1)).plot()
