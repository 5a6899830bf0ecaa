"""LivePlot and times that do not rise: they are drawn in their order, and what is odd is said."""

from __future__ import annotations

import time

import numpy as np
import pytest

import labhub
from tests.notebook.test_live_plot import last_picture, last_value, numbers, plot  # noqa: F401

S = 1_000_000_000
HOUR = 3600 * S
NOW = 1_795_000_000 * S


def write_at(producer, value, time_ns):
    with producer.slot() as slot:
        slot.array[...] = value
        slot.timestamp_ns = time_ns


def axis_end(frames):
    """Where the time axis ends (in nanoseconds since the epoch)."""
    meta, _ = last_picture(frames)
    return 0 if meta is None else int(meta["t0"]) + round(meta["n"] * meta["dt"] * S)


def note(frames):
    return frames[-1][0].get("note", "") if frames else ""


def test_two_slots_of_which_the_second_is_an_hour_earlier_and_more(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x")
        write_at(producer, 1.0, NOW)
        write_at(producer, 2.0, NOW - HOUR)
        wait_until(lambda: last_value(frames) == [2.0])
        assert numbers(frames) == [2.0]
        assert note(frames) == widget.note == "x: its times fell by 1:00:00" + widget.note.partition("1:00:00")[2]
        write_at(producer, 3.0, NOW + S)
        wait_until(lambda: numbers(frames) == [3.0])
        assert abs(axis_end(frames) - NOW - S) < S
        wait_until(lambda: not widget.note)


def test_a_fall_within_the_window_is_drawn_in_its_place(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x", window=7200)
        for value, at in ((1.0, NOW), (2.0, NOW - HOUR), (3.0, NOW + 60 * S), (4.0, NOW - 60 * S)):
            write_at(producer, value, at)
        wait_until(lambda: last_value(frames) == [4.0])
        assert numbers(frames) == [2.0, 4.0, 1.0, 3.0]
        assert "times fell" in widget.note


def test_a_step_back_begins_the_time_axis_anew_and_says_so(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x", window=10)
        for k in range(20):
            write_at(producer, float(k), NOW + k * S // 10)
        wait_until(lambda: last_value(frames) == [19.0])
        assert not widget.note
        for k in range(5):
            write_at(producer, 100.0 + k, NOW - HOUR + k * S)
            wait_until(lambda k=k: last_value(frames) == [100.0 + k])
        assert numbers(frames) == [100.0, 101.0, 102.0, 103.0, 104.0]
        assert widget.note == note(frames) == "x: its times fell by 1:00:02; the time axis began anew"
        assert abs(axis_end(frames) - (NOW - HOUR + 4 * S)) < S
        widget.share = 0.5
        wait_until(lambda: last_picture(frames)[0]["dt"] == pytest.approx(0.0025))
        assert numbers(frames) == [100.0, 101.0, 102.0, 103.0, 104.0]
        widget.window, widget.share = 20.0, 1.0
        wait_until(lambda: last_picture(frames)[0]["dt"] == pytest.approx(0.01))
        assert numbers(frames) == [100.0, 101.0, 102.0, 103.0, 104.0]
        write_at(producer, 200.0, NOW - HOUR + 60 * S)
        wait_until(lambda: numbers(frames) == [200.0])
        wait_until(lambda: not widget.note)


def test_the_step_and_what_follows_it_in_one_batch(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("x", dtype="f8") as producer:
        for k in range(5):
            write_at(producer, float(k), NOW + k * S)
        for k in range(5):
            write_at(producer, 10.0 + k, NOW - HOUR + k * S)
        plot("x", window=10)  # all of it is history
        wait_until(lambda: last_value(frames) == [14.0])
        assert numbers(frames) == [10.0, 11.0, 12.0, 13.0, 14.0]


@pytest.mark.parametrize("begin", [0, -S, -HOUR, NOW - 365 * 24 * HOUR, 2**63 - 2**53, -(2**63) + 2**53])
def test_any_time_after_any_other(hub, frames, plot, wait_until, begin):  # noqa: F811
    with hub.producer("x", dtype="f8") as producer:
        widget = plot("x", window=10)
        for base, value in ((NOW, 1.0), (begin, 2.0), (NOW, 3.0), (begin, 4.0)):
            for k in range(3):
                write_at(producer, value + k / 10, base + k * S)
            wait_until(lambda value=value: last_value(frames) == [value + 0.2])
            assert numbers(frames) == [value, value + 0.1, value + 0.2]
        assert widget.running
        assert "not drawn" not in widget.note


def test_blocks_that_step_back(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("ecg", dtype="f4", shape=(100,), dims="time", sample_rate=1000) as producer:
        widget = plot("ecg", window=1)
        write_at(producer, 1.0, NOW)
        write_at(producer, 2.0, NOW + S // 20)  # overlaps by half a block: the jitter of its clock
        wait_until(lambda: last_value(frames) == [2.0])
        assert not widget.note
        write_at(producer, 3.0, NOW - HOUR)
        wait_until(lambda: last_value(frames) == [3.0])
        assert set(numbers(frames)) == {3.0}
        assert "times fell by 1:00:00; the time axis began anew" in widget.note


def test_a_channel_whose_clock_is_an_hour_behind_does_not_move_the_axis(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("a", dtype="f8") as a, hub.producer("b", dtype="f8") as b:
        widget = plot("a", "b", window=10)
        for k in range(3):
            write_at(a, float(k), NOW + k * S)
            wait_until(lambda k=k: last_value(frames) and last_value(frames)[0] == k)
            write_at(b, 10.0 + k, NOW - HOUR + k * S)
            wait_until(lambda k=k: last_value(frames)[1] == 10.0 + k)
        assert numbers(frames, 0) == [0.0, 1.0, 2.0]
        assert numbers(frames, 1) == []
        assert widget.note == "b: its times are 1:00:00 behind, outside the window"
        write_at(b, 20.0, NOW + 3 * S)
        wait_until(lambda: numbers(frames, 1) == [20.0])
        wait_until(lambda: not widget.note)
        write_at(a, 30.0, NOW - HOUR)
        wait_until(lambda: last_value(frames)[0] == 30.0)
        assert numbers(frames, 0) == [0.0, 1.0, 2.0]
        assert "a: its times fell by 1:00:02" in widget.note or "a: its times are 1:00:03 behind" in widget.note


def test_all_channels_stepping_back_begin_the_axis_anew(hub, frames, plot, wait_until):  # noqa: F811
    with hub.producer("a", dtype="f8") as a, hub.producer("b", dtype="f8") as b:
        plot("a", "b", window=10)
        for producer in (a, b):
            write_at(producer, 1.0, NOW)
        wait_until(lambda: last_value(frames) == [1.0, 1.0])
        write_at(a, 2.0, NOW - HOUR)
        wait_until(lambda: last_value(frames) == [2.0, 1.0])
        write_at(b, 3.0, NOW - HOUR + S)
        wait_until(lambda: last_value(frames) == [2.0, 3.0])
        write_at(a, 3.0, NOW - HOUR + S)
        wait_until(lambda: last_value(frames) == [3.0, 3.0])
        assert (numbers(frames, 0), numbers(frames, 1)) == ([3.0], [3.0])


def test_times_that_jump_about_at_random(hub, frames, plot, wait_until):  # noqa: F811
    rng = np.random.default_rng(0)
    with hub.producer("x", dtype="f8", capacity=4096) as producer:
        widget = plot("x", window=5)
        for value in range(300):
            write_at(producer, float(value), int(NOW + rng.normal(0, 10.0 ** rng.integers(0, 9)) * S))
        wait_until(lambda: last_value(frames) == [299.0])
        assert widget.running
        assert "not drawn" not in widget.note
        write_at(producer, 1000.0, time.time_ns())
        wait_until(lambda: 1000.0 in numbers(frames))


def test_large_whole_numbers_arrive_with_every_digit(hub, frames, plot, wait_until):  # noqa: F811
    dtype = [("n", "u8"), ("t", "f8"), ("m", "i8"), ("on", "?")]
    with hub.producer("x", dtype=dtype) as producer:
        widget = plot("x")
        assert isinstance(widget, labhub.LivePlot)
        producer.write((2**64 - 2, 0.5, 10**17 + 1, True))
        producer.write((2**64 - 1, 1.5, 10**17 + 3, False))
        wait_until(lambda: last_value(frames) == ["18446744073709551615", 1.5, "100000000000000003", 0.0])
        meta, buffers = last_picture(frames)
        points = np.frombuffer(buffers[0], "f8").reshape(4, -1)
        found = [sorted(int(meta["base"][row]) + int(p) for p in points[row] if np.isfinite(p)) for row in (0, 2)]
        assert found == [[2**64 - 2, 2**64 - 1], [10**17 + 1, 10**17 + 3]]
        assert [sorted(numbers(frames, row)) for row in (1, 3)] == [[0.5, 1.5], [0.0, 1.0]]
