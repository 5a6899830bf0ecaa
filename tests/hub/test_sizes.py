"""The length of a channel's ring, as a user of the hub asks for it and is told of it."""

from __future__ import annotations

import numpy as np
import pytest

from labhub.errors import InvalidArgument

BLOCKS = {"dtype": "f4", "shape": (10, 2), "dims": ("time", "channel"), "sample_rate": 1000}


def test_history_is_the_length_of_the_ring_in_seconds(hub):
    with hub.producer("daq", **BLOCKS, history=10.0) as daq:
        assert (daq.capacity, daq.history) == (1003, 10.0)
        assert repr(daq).endswith("capacity=1003, history=10)")
        assert "1003 slots, 10 s" in daq._repr_html_()
        assert hub["daq"].info.history == 10.0
        assert hub.producer("daq", **BLOCKS, history=10.0) is daq  # a cell that is run again
        assert hub.producer("daq", **BLOCKS) is daq
    with hub.producer("camera", dtype="u2", shape=(4, 6), history=2.5, rate=20) as camera:
        assert (camera.capacity, camera.history) == (53, 2.5)
        assert hub["camera"].info.history is None  # nothing in the schema says it
        assert hub.producer("camera", dtype="u2", shape=(4, 6), history=5, rate=20).capacity == 103


def test_the_first_write_may_decide_the_schema(hub):
    with hub.producer("camera", rate=60, history=2) as camera:
        assert (camera.capacity, camera.history) == (None, None)
        camera.write(np.zeros((48, 64), "u2"))
        assert (camera.capacity, camera.history) == (123, 2.0)
    with hub.producer("daq", dims=("time", "channel"), sample_rate=1000, history=2) as daq:
        daq.write(np.zeros((10, 4)))
        assert (daq.capacity, daq.history) == (203, 2.0)
    with hub.producer("large", rate=500) as large:
        large.write(np.zeros((100, 100)))
        assert (large.capacity, large.history) == (1003, 2.0)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"history": 3}, "give rate= as well"),
        ({"history": 3, "like": 0.0}, "give rate= as well"),
        ({"history": 3, "capacity": 3, "rate": 1}, "give one of them"),
        ({"history": -3, "rate": 1}, "positive number of seconds"),
        ({"rate": 0, "like": 0.0}, "positive number of slots per second"),
    ],
)
def test_a_size_without_sense_is_refused_at_the_call(hub, options, why):
    with pytest.raises(InvalidArgument, match=why):
        hub.producer("x", **options)
    assert hub.channels() == []


def test_a_channel_tells_whether_its_ring_reached_back_far_enough(hub):
    with hub.producer("x", like=0, capacity=4) as p:
        p.write_many(range(3))
        assert hub["x"].snapshot(last=100).complete
        p.write_many(range(9))
        assert not hub["x"].snapshot(last=100).complete
        assert not hub["x"].snapshot(seconds=3600).complete
        with hub.consumer("x") as c:
            assert not c.snapshot(last=5).complete
            assert c.snapshot(last=4).complete
        assert hub["x"].to_xarray(last=100).value.values.tolist() == [5, 6, 7, 8]
