"""Decimation: no peak is lost, whatever the rate, and however the samples are cut into batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labhub.notebook.columns import Columns

S = 1_000_000_000
BEGIN = 1_795_000_000 * S


def values_of(columns: Columns, row: int = 0) -> np.ndarray:
    """Every number in the ring, oldest first."""
    order = (2 * (columns.end % columns.n_columns) + np.arange(2 * columns.n_columns)) % (2 * columns.n_columns)
    points = columns.points[row, order]
    return points[np.isfinite(points)] + columns.base[row]


@given(
    counts=st.lists(st.integers(1, 400), min_size=1, max_size=20),
    rate=st.sampled_from([3, 100, 9_999, 1_000_000]),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["f8", "f4", "i4", "u1"]),
)
@settings(deadline=None, max_examples=80)
def test_the_smallest_and_the_largest_sample_of_each_column_are_there_exactly(counts, rate, seed, kind):
    columns = Columns(1, 50, 2 * S)
    rng = np.random.default_rng(seed)
    n = sum(counts)
    values = rng.integers(0, 200, n).astype(kind)
    time_ns = BEGIN + (np.arange(n) * (S / rate)).astype(np.int64)
    at = 0
    for count in counts:
        columns.add(slice(0, 1), time_ns[at : at + count], values[at : at + count, None])
        at += count
    column = time_ns // columns.width
    assert columns.end == column[-1] + 1
    for c in range(max(column[0], columns.end - 50), columns.end):
        points = columns.points[0, 2 * (c % 50) : 2 * (c % 50) + 2]
        found = points[~np.isnan(points)] + columns.base[0]
        mine = values[column == c].astype(float)
        if len(mine):
            assert (found.min(), found.max()) == (mine.min(), mine.max())
        else:
            assert not len(found)


def test_a_peak_of_one_sample_at_1_mhz_stays():
    columns = Columns(2, 1000, 10 * S)
    time_ns = BEGIN + np.arange(1_000_000) * 1000
    values = np.zeros((1_000_000, 2), "f4")
    values[777_777, 0], values[123_456, 1] = 1.0, -1.0
    for part in np.array_split(np.arange(1_000_000), 30):
        columns.add(slice(0, 2), time_ns[part], values[part])
    assert np.count_nonzero(values_of(columns, 0) == 1.0) == 1
    assert np.count_nonzero(values_of(columns, 1) == -1.0) == 1
    order = (2 * (columns.end % 1000) + np.arange(2000)) % 2000
    at = int(np.flatnonzero(columns.points[0, order] == 1.0)[0])
    shown = ((columns.end - 1000) * columns.width + at * columns.width // 2) - BEGIN
    assert abs(shown - 777_777_000) <= columns.width


def test_slow_samples_are_shown_one_by_one_with_nothing_in_between():
    columns = Columns(1, 100, 10 * S)  # 0.1 s a column
    time_ns = BEGIN + np.array([0, 1, 2]) * S
    columns.add(slice(0, 1), time_ns, np.array([[1.0], [2.0], [3.0]]))
    assert values_of(columns).tolist() == [1.0, 2.0, 3.0]


def test_small_changes_of_a_large_value_are_kept():
    columns = Columns(1, 100, S)
    time_ns = BEGIN + np.arange(200) * S // 200
    values = 101_325_000.0 + np.arange(200)[:, None] % 2 * 0.001
    columns.add(slice(0, 1), time_ns, values)
    assert np.ptp(values_of(columns)) == pytest.approx(0.001, rel=1e-3)


def test_a_line_that_moves_far_away_keeps_its_last_digits():
    columns = Columns(1, 100, S)
    time_ns = BEGIN + np.arange(100) * S // 100
    columns.add(slice(0, 1), time_ns, np.zeros((100, 1)))
    far = 1e9 + np.arange(1000) % 2 * 0.25
    columns.add(slice(0, 1), time_ns[-1] + 1 + np.arange(1000) * S // 100, far[:, None])
    assert set(values_of(columns)) == {1e9, 1e9 + 0.25}


def whole_values_of(columns: Columns, row: int = 0) -> set[int]:
    """Every whole number in the ring, without rounding."""
    points = columns.points[row]
    return {columns.base[row] + int(point) for point in points[np.isfinite(points)]}


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        ("i8", [10**17, 10**17 + 16]),
        ("i8", [10**17 + 1, 10**17 + 3]),
        ("i8", [2**53, 2**53 + 1]),
        ("i8", [-(2**63), -(2**63) + 1]),
        ("u8", [2**64 - 1, 2**64 - 2]),
        (">u8", [2**63 - 1, 2**63 + 1]),
        ("u8", [0, 2**53 - 1]),
        ("u4", [2**32 - 1, 2**32 - 2]),
        ("?", [0, 1]),
    ],
)
def test_whole_numbers_keep_every_digit(dtype, numbers):
    columns = Columns(1, 100, S)
    values = np.array(numbers, dtype)[:, None]
    columns.add(slice(0, 1), BEGIN + np.arange(2) * S // 2, values)
    assert whole_values_of(columns) == set(numbers)
    assert whole_values_of(columns.resampled(2 * S)) == set(numbers)


def test_a_counter_that_becomes_large_is_exact_once_the_small_numbers_are_gone():
    columns = Columns(1, 100, S)
    columns.add(slice(0, 1), np.array([BEGIN]), np.array([[5]]))
    columns.add(slice(0, 1), np.array([BEGIN + 2 * S]), np.array([[10**18 + 1]]))
    columns.settle()
    columns.add(slice(0, 1), np.array([BEGIN + 4 * S]), np.array([[10**18 + 3]]))
    assert whole_values_of(columns) == {10**18 + 3}
    both_ends = Columns(1, 100, S)
    both_ends.add(slice(0, 1), BEGIN + np.arange(2) * S // 2, np.array([[-(2**63)], [2**63 - 1]]))
    assert np.ptp(values_of(both_ends)) == 2.0**64


@pytest.mark.parametrize("values", [[1e308, -1e308], [5e-324, 1e-323], [1.0, np.nextafter(1, 2)], [1e-310, 2e-310]])
def test_a_floating_point_number_is_itself(values):
    columns = Columns(1, 100, S)
    columns.add(slice(0, 1), BEGIN + np.arange(2) * S // 2, np.array(values)[:, None])
    assert values_of(columns).tolist() == values


def test_samples_of_before_go_into_their_columns():
    columns = Columns(1, 10, 10 * S)
    columns.add(slice(0, 1), BEGIN + np.array([0, 4, 8]) * S, np.array([[1.0], [5.0], [9.0]]))
    columns.add(slice(0, 1), BEGIN + np.array([2, 4]) * S, np.array([[3.0], [-5.0]]))
    columns.add(slice(0, 1), np.array([BEGIN + 9 * S]), np.array([[10.0]]))
    assert values_of(columns).tolist() == [1.0, 3.0, 5.0, -5.0, 9.0, 10.0]


@pytest.mark.parametrize("begin", [0, -3 * S, -(2**63) + 1, 2**63 - 3 * S])
def test_every_time_that_a_slot_can_have_is_drawn(begin):
    columns = Columns(1, 100, 10 * S)
    columns.add(slice(0, 1), begin + np.arange(3) * S, np.array([[1.0], [2.0], [3.0]]))
    assert values_of(columns)[-1] == 3.0
    assert values_of(columns.resampled(5 * S))[-1] == 3.0


def test_what_is_no_number_breaks_the_line():
    columns = Columns(1, 100, 10 * S)
    values = np.array([[1.0], [np.nan], [np.inf], [4.0]])
    columns.add(slice(0, 1), BEGIN + np.arange(4) * S, values)
    points = columns.points[0]
    assert values_of(columns).tolist() == [1.0, 4.0]
    assert np.count_nonzero(np.isposinf(points)) == 2


def test_series_of_different_rates_keep_their_own_times():
    columns = Columns(2, 100, 10 * S)
    columns.add(slice(0, 1), BEGIN + np.arange(0, 10_000) * S // 1000, np.ones((10_000, 1)))
    columns.add(slice(1, 2), BEGIN + np.array([0, 9]) * S, np.full((2, 1), 5.0))
    assert len(values_of(columns, 0)) == 200
    assert values_of(columns, 1).tolist() == [5.0, 5.0]


def test_what_is_older_than_the_ring_is_left_out_and_what_falls_out_is_forgotten():
    columns = Columns(1, 10, 10 * S)
    columns.add(slice(0, 1), BEGIN + np.array([0, 20]) * S, np.array([[1.0], [2.0]]))
    assert values_of(columns).tolist() == [2.0]
    columns.add(slice(0, 1), np.array([BEGIN + 24 * S]), np.array([[3.0]]))
    assert values_of(columns).tolist() == [2.0, 3.0]
    columns.add(slice(0, 1), np.array([BEGIN + 31 * S]), np.array([[4.0]]))
    assert values_of(columns).tolist() == [3.0, 4.0]
    columns.add(slice(0, 1), np.array([BEGIN]), np.array([[9.0]]))
    assert values_of(columns).tolist() == [3.0, 4.0]


def test_another_span_keeps_the_extremes():
    columns = Columns(1, 100, 10 * S)
    time_ns = BEGIN + np.arange(10_000) * S // 1000
    values = np.zeros((10_000, 1))
    values[5000], values[9900] = 7.0, -7.0
    columns.add(slice(0, 1), time_ns, values)
    for span in (5 * S, 20 * S):
        found = values_of(columns.resampled(span))
        assert (found.min(), found.max()) == (-7.0, 7.0)
