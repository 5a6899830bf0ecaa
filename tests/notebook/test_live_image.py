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


def shown_levels(pixels, low=None, high=None):
    return len(np.unique(quantised(pixels, *range_of(pixels, low, high, 0.5))))


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("pixels", "levels"),
    [
        ((RAMP + 2**31).astype("u4"), 254),
        ((RAMP + 2**31).astype(">u4"), 254),
        ((np.arange(101) + 10**9).astype("i4").reshape(1, 101), 101),
        ((RAMP + 10**17).astype("i8"), 254),
        (RAMP + np.int64(-(2**63)), 254),
        (RAMP.astype("u8") + np.uint64(2**63), 254),
        ((RAMP.astype("u8") + np.uint64(2**64 - 256)).astype(">u8"), 254),
        (1.75e9 + np.linspace(0, 10, 1024).reshape(32, 32), 255),
        (1013.25 + np.linspace(0, 1e-3, 1024).reshape(32, 32), 255),
        ((1013.25 + np.linspace(0, 1e-3, 1024)).astype(">f8").reshape(32, 32), 255),
        (np.linspace(0, 1, 1024).reshape(32, 32).astype("f2"), 255),
        (RAMP.astype(np.longdouble), 254),
        ((1e308 * np.linspace(-1, 1, 1024)).reshape(32, 32), 255),
        (np.linspace(1e-310, 2e-310, 1024).reshape(32, 32), 255),
        (np.array([[1.0, np.nextafter(1, 2)]]), 2),
        (RAMP > 100, 2),
        (RAMP.astype("i1"), 254),
    ],
)
def test_the_range_of_a_frame_has_all_its_levels(pixels, levels):
    assert shown_levels(pixels) == levels


def test_every_level_of_a_given_range():
    assert shown_levels((RAMP[:, :15] + 2**31).astype("u4"), 2.0**31, 2.0**31 + 254) == 240
    pixels = RAMP.astype("u8") + np.uint64(2**63)
    codes = quantised(pixels, 2**63, 2**63 + 254)
    assert np.array_equal(codes.astype(int), np.minimum(RAMP + 1, 255))


@pytest.mark.parametrize(
    "frame",
    [
        np.full((8, 8), 2**53, "u8"),
        np.full((8, 8), 1e17),
        np.full((8, 8), 2**64 - 1, "u8"),
        np.full((8, 8, 3), 2**64 - 1, "u8"),
        np.full((8, 8), 1.7976931348623157e308),
        np.full((8, 8), -1.7976931348623157e308),
        np.full((8, 8), np.nan),
        np.full((8, 8), np.inf),
        np.full((8, 8), -np.inf, "f4"),
        np.full((8, 8), 5e-324),
        np.zeros((8, 8), "?"),
        np.array([[1e308, -1e308], [0, 1e-310]]),
        np.array([[np.nan, np.inf], [-np.inf, 1.0]], "f2"),
    ],
)
@pytest.mark.parametrize("limits", [{}, {"vmin": 1e17}, {"vmax": -1e17}, {"vmin": 1e308}, {"vmax": 1e-310}])
def test_any_frame_is_drawn(hub, frames, show, wait_until, frame, limits):
    with hub.producer("cam", dtype=frame.dtype, shape=frame.shape) as producer:
        widget = show("cam", **limits)
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        meta, codes = newest(frames)
        assert np.isfinite([meta["low"], meta["high"]]).all()
        assert codes.shape == frame.shape
        assert np.array_equal(codes == 0, np.isnan(frame))
        assert widget.running
        assert not widget.note


def test_a_pixel_that_is_no_number_is_left_out_of_the_mean():
    pixels = np.ones((8, 8))
    pixels[0, 0], pixels[7, 7] = np.nan, np.inf
    pixels[:4, 4:], pixels[4:, :4] = np.nan, -np.inf
    assert np.array_equal(reduced(pixels, 4, "mean"), [[1.0, np.nan], [-np.inf, 1.0]], equal_nan=True)


@pytest.mark.parametrize(
    ("pixels", "mean"),
    [
        (np.full((4, 4), 2**64 - 1, "u8"), 2**64 - 1),
        (np.full((4, 4), -(2**63), "i8"), -(2**63)),
        (np.array([[10**17, 10**17 + 2]] * 4, "i8"), 10**17 + 1),
        (np.full((4, 4), 1.7e308), 1.7e308),
        (np.full((4, 4), 60000, "f2"), 60000.0),
        (np.full((4, 4), 1013.25001), 1013.25001),
        (np.full((4, 4), 2**32 - 1, "u4"), 2**32 - 1),
        (np.array([[True, False]] * 4), 0.5),
    ],
)
def test_the_mean_keeps_its_digits(pixels, mean):
    found = reduced(pixels, 4, "mean")
    assert [value.item() for value in found.ravel()] == [mean]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", ">u2", ">i2", "?"])
def test_small_whole_numbers_are_sent_as_they_are_too(hub, frames, show, wait_until, dtype):
    frame = np.arange(64).reshape(8, 8).astype(dtype)
    with hub.producer("cam", dtype=dtype, shape=(8, 8)) as producer:
        show("cam")
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        meta, buffers = next((meta, buffers) for meta, buffers in reversed(frames) if buffers)
        assert np.array_equal(np.frombuffer(buffers[1], f"<{meta['raw']}").reshape(8, 8), frame)


def test_the_pixel_under_the_pointer_has_every_digit(hub, frames, show, wait_until):
    frame = RAMP.astype("u8") + np.uint64(2**63)
    with hub.producer("cam", dtype="u8", shape=(16, 16)) as producer:
        widget = show("cam")
        producer.write(frame)
        wait_until(lambda: newest(frames)[0]["seq"] == 0)
        widget._handle_custom_msg({"pointer": [3, 1]}, [])
        told = {"at": [3, 1], "texts": [str(2**63 + 19)]}
        wait_until(lambda: newest(frames)[0]["pixel"] == told)
        widget._handle_custom_msg({"pointer": [3000, 1]}, [])
        wait_until(lambda: newest(frames)[0]["pixel"] is None)


def test_limits_that_are_no_range(hub, show):
    with hub.producer("cam", dtype="u1", shape=(4, 4)):
        widget = show("cam", vmin=0, vmax=10)
        with pytest.raises(InvalidArgument, match="vmin is less than vmax"):
            widget.vmin = 10
        with pytest.raises(InvalidArgument, match="vmin is less than vmax"):
            widget.vmax = -1
        for bad in (float("nan"), float("inf")):
            with pytest.raises(InvalidArgument, match="finite"):
                widget.vmax = bad
        for bad in (10**400, float("nan"), 1j, np.complex128(1), "1"):
            with pytest.raises(InvalidArgument, match="finite"):
                show("cam", vmin=bad)
        assert (widget.vmin, widget.vmax) == (0, 10)
