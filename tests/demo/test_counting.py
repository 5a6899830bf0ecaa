"""Counting and judging, apart from any stream."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from labhub.cli.demo.display import sparkline
from labhub.cli.demo.messages import Report
from labhub.cli.demo.outcome import complaints, silences
from labhub.cli.demo.readers import human
from labhub.cli.demo.tally import Tally


def batch(*seqs, age_ms=1.0):
    stamps = np.full(len(seqs), time.time_ns() - int(age_ms * 1e6), dtype=np.int64)

    class FakeBatch(SimpleNamespace):
        def __len__(self):
            return len(seqs)

    return FakeBatch(seq=np.array(seqs, dtype=np.uint64), timestamp_ns=stamps)


def reports(**changes):
    producers = {name: Report(state="done", slots=10) for name in ("host.sensors", "bio.ppg", "cam.frames")}
    readers = {
        "monitor": Report(state="done", slots=10),
        "pulse meter": Report(state="done", slots=10),
        "recorder": Report(state="done", slots=10),
        "slow display": Report(state="done", slots=4, lost=6),
    }
    return producers, readers | changes


def test_every_slot_is_counted_with_its_age():
    tally = Tally()
    tally.add(batch(0, 1, 2))
    tally.add(batch(5, age_ms=9.0))
    assert tally.received == 4
    assert tally.disordered == 0
    p50, p99 = tally.percentiles()
    assert p50 == pytest.approx(1.0, abs=0.9)
    assert p99 > 5.0


@pytest.mark.parametrize("second", [(2,), (1,), (3, 3), (4, 3)])
def test_a_seq_that_does_not_rise_is_noticed(second):
    tally = Tally()
    tally.add(batch(0, 1, 2))
    tally.add(batch(*second))
    assert tally.disordered == 1


def test_a_sound_demo_has_no_complaint():
    assert list(complaints(*reports())) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (Report(state="done", slots=9), "9 received + 0 lost, but 10 produced"),
        (Report(state="done", slots=10, lost=1), "10 received + 1 lost, but 10 produced"),
        (Report(state="done", slots=10, wrong=2), "2 slots with wrong content"),
    ],
)
def test_what_does_not_add_up_is_named(changed, words):
    (line,) = complaints(*reports(recorder=changed))
    assert line.startswith("cam.frames, recorder: ")
    assert words in line


def test_a_silent_producer_is_a_complaint():
    silent = {name: Report(state="done") for name in ("host.sensors", "bio.ppg", "cam.frames")}
    assert list(complaints(silent, {})) == []
    assert len(list(silences(silent))) == 3


def test_numbers_are_short():
    assert [human(value) for value in (0.0, 999.4, 1234.0, 5e6, 7.25e9, 3e12)] == [
        "0 ", "999 ", "1.23 k", "5 M", "7.25 G", "3 T",
    ]  # fmt: skip
    assert human(float("nan")) == "? "


def test_a_flat_signal_draws_a_flat_line():
    assert sparkline((1.0, 1.0)) == "▁▁"
    assert sparkline((0.0, 1.0)) == "▁█"
