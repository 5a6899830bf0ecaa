"""A live image of a channel whose slots are frames."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from labhub.arguments import checked_choice, checked_text, number_of
from labhub.datablock.batch import Batch
from labhub.errors import ClosedError, InvalidArgument
from labhub.hub import Channel, Hub
from labhub.hub.connecting import given_or_default
from labhub.names import check_one
from labhub.notebook.image import ImageField, choose_image, quantised, range_of, reduced
from labhub.notebook.live import LiveWidget
from labhub.notebook.source import Source
from labhub.words import quoted, visible

COLOR_MAPS = ("gray", "viridis", "magma", "coolwarm")
RATE_SECONDS = 2.0
"""Time over which the channel's rate is measured."""


class LiveImage(LiveWidget):
    """The newest slot of a channel as an image, while it is written, and while cells run.

    It reads through a lossy reader of its own, so it never slows the camera. Frames wider than `max_width` are made
    smaller, and the page says by how much. Colour map and range of values can be changed on the page. The histogram is
    that of the 255 levels that are sent.

    The value under the pointer is the pixel's own, to its last digit: that of a whole number of 1 or 2 bytes always,
    that of another pixel when the kernel has time to tell it. Until then, and for the mean of many pixels, the page
    shows the level with a "≈". A pixel that is no finite number is left out of a mean; NaN is transparent, and
    infinities have the colours of the ends. A frame that cannot be drawn is skipped, and `note` says why.

    Parameters
    ----------
    channel : str or Channel
        A channel with slots of two axes (rows, columns), or of three with 3 colours in the last.
    field : str, optional
        Which field of a structured slot; the first that is an image unless given.
    hub : Hub, optional
        Where the channel is; that of ``labhub.connect()`` unless given.
    cmap : {"gray", "viridis", "magma", "coolwarm"}
        Colour map of an image without colours.
    vmin, vmax : float, optional
        Values of the first and last colour, the first one less than the last one. Unless given they follow the frames,
        without the outermost half percent at either end.
    title : str
        What to write above it; the channel's name unless given.
    max_width : int
        Most pixels in a row that are sent.
    reduce : {"mean", "stride"}
        How pixels become fewer: by their mean, or by leaving pixels out, which is faster.

    Raises
    ------
    InvalidArgument
        The channel has no image, or a number or name cannot be used.
    ChannelNotFound
        The broker does not know the channel; the message names the closest names.
    BrokerUnreachable, SegmentAccessError, IncompatibleSegment
    """

    NAME = "live_image"

    cmap = traitlets.Unicode("gray", help="colour map").tag(sync=True)
    vmin = traitlets.Float(None, allow_none=True, help="value of the first colour").tag(sync=True)
    vmax = traitlets.Float(None, allow_none=True, help="value of the last colour").tag(sync=True)
    unit = traitlets.Unicode(help="of the values").tag(sync=True)

    def __init__(
        self,
        channel: str | Channel,
        field: str | None = None,
        *,
        hub: Hub | None = None,
        cmap: str = "gray",
        vmin: float | None = None,
        vmax: float | None = None,
        title: str = "",
        max_width: int = 640,
        reduce: str = "mean",
    ) -> None:
        name = channel.name if isinstance(channel, Channel) else check_one(channel)
        checked_choice("reduce", reduce, ("mean", "stride"))
        if field is not None:
            checked_text("field", field)
        if isinstance(max_width, bool) or not isinstance(max_width, int) or not 16 <= max_width <= 8192:
            raise InvalidArgument(f"max_width is a number of pixels from 16 to 8192, not {max_width!r}")
        low, high = _checked_value("vmin", vmin), _checked_value("vmax", vmax)
        _check_range(low, high)
        super().__init__(
            given_or_default(hub),
            cmap=_checked_map(cmap),
            vmin=low,
            vmax=high,
            title=checked_text("title", title) or name,
        )
        self._channel = name
        self._field = field
        self._max_width = max_width
        self._reduce = reduce
        self._source: Source | None = None
        self._image: ImageField | None = None
        self._newest: Batch | None = None
        self._counts: list[tuple[float, int]] = []
        self._pointer: tuple[int, int] | None = None
        self._begin()

    @traitlets.validate("cmap")
    def _valid_map(self, proposal: dict[str, Any]) -> str:
        return _checked_map(proposal["value"])

    @traitlets.validate("vmin")
    def _valid_vmin(self, proposal: dict[str, Any]) -> float | None:
        value = _checked_value("vmin", proposal["value"])
        _check_range(value, self.vmax)
        return value

    @traitlets.validate("vmax")
    def _valid_vmax(self, proposal: dict[str, Any]) -> float | None:
        value = _checked_value("vmax", proposal["value"])
        _check_range(self.vmin, value)
        return value

    @traitlets.observe("vmin", "vmax")
    def _range_changed(self, change: dict[str, Any]) -> None:
        self._wanted = True

    # ------------------------------------------------------------------------------------------------- the thread's

    def _open(self) -> None:
        self._release()
        self._source = Source(self._hub, self._channel, "latest")
        self._image = choose_image(self._channel, self._source.schema, self._field)
        if self.unit != (unit := visible(self._image.unit)):
            self.unit = unit
        self._counts = []
        newest = self._source.history(0.0)
        self._newest = newest.split(len(newest) - 1)[1] if len(newest) else None

    def _release(self) -> None:
        if self._source is not None:
            self._source.close()

    def _update(self) -> tuple[dict[str, Any], list[bytes]] | None:
        assert self._source is not None  # the thread opens before it updates
        newest = next(self._source.read(), None)
        if self._source.closed:
            raise ClosedError(f"the reader of {self._channel!r} was closed")
        if newest is None:
            return self._picture_again() if self._frame == 0 else None
        if self._newest is not None and newest.schema is not self._newest.schema:
            self._image = choose_image(self._channel, newest.schema, self._field)
        if self._newest is not None and newest.epoch != self._newest.epoch:
            self._counts = []
        self._newest = newest
        self._count(int(newest.seq[-1]))
        return self._picture_again()

    def _picture_again(self) -> tuple[dict[str, Any], list[bytes]] | None:
        if self._newest is None or self._image is None:
            return None
        image, slot = self._image, self._newest
        pixels = slot.data[-1]
        for name in image.path:
            pixels = pixels[name]
        factor = math.ceil(image.width / self._max_width)
        small = reduced(pixels, factor, self._reduce)
        low, high = range_of(small, self.vmin, self.vmax, 0.5)
        if image.rgb and pixels.dtype == np.uint8 and self.vmin is None and self.vmax is None:
            low, high = 0.0, 255.0
        meta = {
            "width": small.shape[1],
            "height": small.shape[0],
            "full": [image.width, image.height],
            "factor": factor,
            "reduce": self._reduce,
            "rgb": image.rgb,
            "whole": pixels.dtype.kind != "f" and factor == 1,
            "raw": _raw_kind(small) if pixels.dtype == small.dtype else "",
            "low": float(low),
            "high": float(high),
            "seq": int(slot.seq[-1]),
            "time": int(slot.timestamp_ns[-1]) / 1e9,
            "rate": self._rate(),
            "pixel": _pixel(small, self._pointer),
        }
        codes = quantised(small, low, high).tobytes()
        if not meta["raw"]:
            return meta, [codes]
        return meta, [codes, small.astype(small.dtype.newbyteorder("<"), copy=False).tobytes()]

    def _answer(self, widget: LiveWidget, content: dict[str, Any], buffers: list[memoryview]) -> None:
        super()._answer(widget, content, buffers)
        if "pointer" in content:
            self._pointer = tuple(content["pointer"]) if content["pointer"] else None
            self._wanted = True

    def _count(self, seq: int) -> None:
        now = time.monotonic()
        self._counts = [c for c in self._counts if now - c[0] <= RATE_SECONDS]
        self._counts.append((now, seq))

    def _rate(self) -> float | None:
        """Slots per second of the channel, shown or not; None while unknown."""
        if len(self._counts) < 2 or self._counts[-1][0] == self._counts[0][0]:
            return None
        (begin, first), (end, last) = self._counts[0], self._counts[-1]
        return (last - first) / (end - begin)

    def _gone(self) -> str:
        why = self._source.gone if self._source is not None else ""
        return f"{self._channel}: producer gone ({why})" if why else ""

    def __repr__(self) -> str:
        return f"LiveImage({self._channel}: {self._image.name if self._image else self._field})"


def _checked_map(cmap: object) -> str:
    if not isinstance(cmap, str) or cmap not in COLOR_MAPS:
        raise InvalidArgument(f"cmap is one of {', '.join(COLOR_MAPS)}, not {cmap!r}")
    return str(cmap)


def _checked_value(name: str, value: object) -> float | None:
    if value is None:
        return None
    number = number_of(value)
    if number is None or not math.isfinite(number):
        raise InvalidArgument(f"{name} is a finite number, or None to follow the frames, not {quoted(value)}")
    return number


def _check_range(vmin: float | None, vmax: float | None) -> None:
    if vmin is not None and vmax is not None and not vmin < vmax:
        raise InvalidArgument(f"vmin is less than vmax; they are {vmin!r} and {vmax!r}")


def _raw_kind(pixels: NDArray[Any]) -> str:
    """How the page reads pixels that are sent as they are, such as ``u2``; empty if they are too many bytes."""
    kind = pixels.dtype.kind.replace("b", "u")
    return f"{kind}{pixels.dtype.itemsize}" if kind in "iu" and pixels.dtype.itemsize <= 2 else ""


def _pixel(pixels: NDArray[Any], at: tuple[int, int] | None) -> dict[str, Any] | None:
    """The values of the pixel under the pointer, with every digit."""
    if at is None or not (0 <= at[0] < pixels.shape[1] and 0 <= at[1] < pixels.shape[0]):
        return None
    values = np.atleast_1d(pixels[at[1], at[0]])
    return {"at": list(at), "texts": [str(value.item()) for value in values]}
