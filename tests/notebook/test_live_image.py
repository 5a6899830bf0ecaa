"""LiveImage without a browser: what becomes of a frame, and of bad input."""

from __future__ import annotations

import numpy as np
import pytest

import labhub
from labhub.datablock.location import segment_directory
from labhub.errors import ChannelNotFound, InvalidArgument
from labhub.notebook.image import quantised, range_of, reduced


def newest(frames):
    """The newest frame that was sent: (meta, codes of shape (height, width[, 3]))."""
    for meta, buffers in reversed(frames):
        if buffers:
            shape = (meta["height"], meta["width"], *((3,) if meta["rgb"] else ()))
            return meta, np.frombuffer(buffers[0], "u1").reshape(shape)
    return {"seq": -1}, None


@pytest.fixture
def show(hub, frames):
    """Make images that are closed at the end."""
    made = []

    def make(*args, **options):
        made.append(labhub.LiveImage(*args, hub=hub, **options))
        return made[-1]

    yield make
    for widget in made:
        widget.close()
        assert not widget.running


def test_a_small_frame_arrives_whole(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="u1", shape=(4, 300), units="counts") as producer:
        widget = show("cam", vmin=0, vmax=254)
        assert repr(widget) == "LiveImage(cam: value)"
        assert widget.unit == "counts"
        frame = (np.arange(1200) % 255).astype("u1").reshape(4, 300)
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        meta, codes = newest(frames)
        assert (meta["factor"], meta["full"], meta["whole"]) == (1, [300, 4], True)
        assert np.array_equal(codes.astype(int) - 1, frame)


def test_a_frame_that_was_there_before_is_shown(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="u1", shape=(4, 4)) as producer:
        for _ in range(3):
            producer.write(np.zeros((4, 4), "u1"))
        show("cam")
        wait_until(lambda: newest(frames)[0]["seq"] == 2)


def test_a_wide_frame_is_made_smaller_and_says_so(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="f4", shape=(101, 1500)) as producer:
        show("cam", vmin=0.0, vmax=1.0)
        frame = np.zeros((101, 1500), "f4")
        frame[:, 750:] = 1.0
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        meta, codes = newest(frames)
        assert (meta["factor"], codes.shape, meta["full"]) == (3, (34, 500), [1500, 101])
        assert (codes[:, :250] == 1).all()
        assert (codes[:, 250:] == 255).all()


def test_only_the_newest_frame_is_sent_and_the_producer_never_waits(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="u1", shape=(8, 8), capacity=4) as producer:
        show("cam")
        for k in range(500):
            producer.write(np.full((8, 8), k % 255, "u1"))
        wait_until(lambda: newest(frames)[0]["seq"] == 499)
        assert producer.stats()["blocked"] == 0


def test_colours(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="u1", shape=(2, 2, 3)) as producer:
        show("cam")
        frame = np.array([[[0, 127, 255]] * 2] * 2, "u1")
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        meta, codes = newest(frames)
        assert (meta["rgb"], meta["low"], meta["high"]) == (True, 0.0, 255.0)
        assert np.abs((codes.astype(float) - 1) * 255 / 254 - frame).max() <= 0.51


def test_an_image_in_a_record(hub, frames, show):
    with hub.producer("rig", dtype=[("t", "f8"), ("a", "u2", (4, 5)), ("b", "f4", (6, 7))]):
        assert repr(show("rig")) == "LiveImage(rig: a)"
        assert repr(hub["rig"].image("b")) == "LiveImage(rig: b)"
        with pytest.raises(InvalidArgument, match=r"field 't' of 'rig' is no image; a, b is"):
            show("rig", "t")


def test_bad_input(hub, show):
    with hub.producer("x", dtype="f8"), hub.producer("cam", dtype="u1", shape=(4, 4)):
        with pytest.raises(InvalidArgument, match=r"channel 'x' has no image.*use LivePlot"):
            show("x")
        with pytest.raises(ChannelNotFound, match="Did you mean 'cam'"):
            show("camm")
        for bad in ({"cmap": "jet"}, {"vmin": 2, "vmax": 1}, {"vmin": "low"}, {"max_width": 0}, {"reduce": "median"}):
            with pytest.raises(InvalidArgument):
                show("cam", **bad)
        assert not labhub.diagnose("cam", segment_directory("default")).readers


def test_gone_and_back_with_another_size(hub, frames, show, wait_until):
    with hub.producer("cam", dtype="u1", shape=(4, 4)) as producer:
        show("cam")
        producer.write(np.zeros((4, 4), "u1"))
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
    wait_until(lambda: frames[-1][0]["status"] == "cam: producer gone (ended)")
    with hub.producer("cam", dtype="u2", shape=(6, 8)) as producer:
        producer.write(np.zeros((6, 8), "u2"))
        wait_until(lambda: frames[-1][0]["state"] == "live" and newest(frames)[0]["full"] == [8, 6])


def test_the_mean_of_blocks_with_a_rest():
    pixels = np.arange(35, dtype="u2").reshape(5, 7)
    found = reduced(pixels, 3, "mean")
    wanted = [[pixels[a : a + 3, b : b + 3].mean() for b in (0, 3, 6)] for a in (0, 3)]
    assert np.allclose(found, wanted)
    assert reduced(pixels, 3, "stride").tolist() == [[0, 3, 6], [21, 24, 27]]


def test_no_number_is_code_zero_and_what_is_beyond_the_range_is_its_end():
    codes = quantised(np.array([[np.nan, -5.0, 0.0, 1.0, np.inf]]), 0.0, 1.0)
    assert codes.tolist() == [[0, 1, 1, 255, 255]]


def test_the_range_follows_the_frame_without_its_outliers():
    pixels = np.linspace(0, 100, 10_000).reshape(100, 100)
    pixels[0, 0] = 1e9
    low, high = range_of(pixels, None, None, 0.5)
    assert low == pytest.approx(0.5, abs=0.1)
    assert high == pytest.approx(99.5, abs=0.1)
    assert range_of(pixels, -1.0, None, 0.5)[0] == -1.0
    assert range_of(np.full((4, 4), np.nan), None, None, 0.5) == (0.0, 1.0)
