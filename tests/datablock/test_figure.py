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


@pytest.mark.parametrize(
    "text", ["$", "US$", "a$b", "m_s^2", "\\", "{", "}", "%", "#", "~", "$\\frac{1$", "µm", "_", "&"]
)
def test_names_and_units_are_drawn_as_they_are(text):
    schema = Schema.infer(dtype=[(text, "f8"), (f"_{text}", "f8")], units={text: text, f"_{text}": text})
    figure = batch_of(schema, np.zeros(3, schema.dtype)).plot()
    (panel,) = figure.axes
    assert panel.get_ylabel() == f"value ({text})"
    assert [label.get_text() for label in panel.get_legend().get_texts()] == [text, f"_{text}"]
    assert figure._repr_png_().startswith(b"\x89PNG")
    alone = batch_of(schema, np.zeros(3, schema.dtype)).plot(f"_{text}")
    assert alone.axes[0].get_ylabel() == f"_{text} ({text})"
    assert alone._repr_png_().startswith(b"\x89PNG")


def test_falling_times_are_drawn_in_their_order():
    batch = batch_of(Schema.infer(dtype="f8"), np.array([1.0, 2.0, 3.0]))
    batch.headers["timestamp_ns"] = np.array([0, -3600 * S, S])
    (line,) = batch.plot().axes[0].lines
    assert line.get_xdata().tolist() == [0.0, 3600.0, 3601.0]
    assert line.get_ydata().tolist() == [2.0, 1.0, 3.0]
    assert batch.plot().axes[0].get_xlabel() == "time (s) after 1969-12-31 23:00:00.000 UTC"


@pytest.mark.parametrize(
    ("values", "drawn", "label"),
    [
        (np.array([10**17 + 1, 10**17 + 3], "i8"), [0, 2], "rig - 100000000000000001"),
        (np.array([2**64 - 1, 2**64 - 2], "u8"), [1, 0], "rig - 18446744073709551614"),
        (np.array([-(2**63), 1 - 2**63], ">i8"), [0, 1], "rig + 9223372036854775808"),
        (np.array([2**53, 0], "u8"), [2.0**53, 0], "rig"),
        (np.array([1e308, -1e308]), [1e8, -1e8], "rig / 1e+300"),
        (np.array([np.inf, np.nan]), [np.inf, np.nan], "rig"),
        (np.array([5e-324, 0]), [5e-324, 0], "rig"),
        (np.array([1.0, np.nextafter(1, 2)]), [1.0, np.nextafter(1, 2)], "rig"),
        (np.array([True, False]), [1, 0], "rig"),
    ],
)
def test_values_at_the_ends_of_their_types(values, drawn, label):
    figure = batch_of(Schema.infer(dtype=values.dtype), values).plot()
    (line,) = figure.axes[0].lines
    assert np.allclose(line.get_ydata(), drawn, rtol=1e-15, atol=0, equal_nan=True)
    assert figure.axes[0].get_ylabel() == label
    assert figure._repr_png_().startswith(b"\x89PNG")
