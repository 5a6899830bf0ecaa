"""Frames for the browser: which field of a slot is an image, and how it becomes few bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument
from labhub.schema import Schema, leaves

RGB = 3
SAMPLE_PIXELS = 20_000
"""About so many pixels decide the automatic range."""


@dataclass(frozen=True)
class ImageField:
    """A field of a slot that is an image.

    Attributes
    ----------
    name : str
        ``value`` for a plain dtype.
    path : tuple of str
        Path of the field in a structured dtype; ``()`` for a plain one.
    height, width : int
        Of the whole image (in pixels).
    rgb : bool
        Whether a pixel has three channels.
    unit : str
        Empty where unknown.
    """

    name: str
    path: tuple[str, ...]
    height: int
    width: int
    rgb: bool
    unit: str


def choose_image(channel: str, schema: Schema, field: str | None) -> ImageField:
    """Choose the image of a slot: the named one, or the first.

    Raises
    ------
    InvalidArgument
        There is none; the message says which fields are images, or what the slots are instead.
    """
    found = list(_images(schema))
    mine = [image for image in found if field in (None, image.name)]
    if mine:
        return mine[0]
    if found:
        raise InvalidArgument(f"field {field!r} of {channel!r} is no image; {', '.join(i.name for i in found)} is")
    raise InvalidArgument(
        f"channel {channel!r} has no image: a slot is {schema!r}, and an image has numbers in two axes, or in three of "
        "which the last one has length 3; use LivePlot for anything else"
    )


def _images(schema: Schema) -> Iterator[ImageField]:
    for leaf in leaves(schema.dtype):
        shape = (*schema.shape, *leaf.shape)
        rgb = len(shape) == 3 and shape[2] == RGB
        if leaf.dtype.kind in "biuf" and (len(shape) == 2 or rgb):
            yield ImageField(leaf.name, leaf.path, shape[0], shape[1], rgb, schema.unit_of(leaf))


def reduced(pixels: NDArray[Any], factor: int, how: str) -> NDArray[Any]:
    """Make an image smaller.

    Parameters
    ----------
    pixels : ndarray of shape (height, width) or (height, width, 3)
        The image.
    factor : int
        Pixels that become one, along either axis; the last ones of a row and column may be fewer.
    how : {"mean", "stride"}
        Their mean, or the first of them.

    Returns
    -------
    ndarray
        float32 for a mean, else as `pixels`.
    """
    if factor == 1:
        return pixels
    if how == "stride":
        return pixels[::factor, ::factor]
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    total = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=np.float32), columns, axis=1)
    counts = np.outer(np.diff(rows, append=height), np.diff(columns, append=width)).astype(np.float32)
    return total / counts.reshape(*counts.shape, *(1,) * (pixels.ndim - 2))


def range_of(pixels: NDArray[Any], low: float | None, high: float | None, percent: float) -> tuple[float, float]:
    """Return the range of values to show: as given, else without the outermost `percent` at either end."""
    if low is None or high is None:
        step = max(1, pixels.size // SAMPLE_PIXELS)
        some = pixels.ravel()[::step].astype(np.float64)
        some = some[np.isfinite(some)]
        found = np.percentile(some, [percent, 100 - percent]) if len(some) else np.array([0.0, 1.0])
        low = float(found[0]) if low is None else low
        high = float(found[1]) if high is None else high
    return (low, high) if high > low else (low, low + 1.0)


def quantised(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return a byte for each value: from 1 for `low` (and less) to 255 for `high` (and more), 0 for no number."""
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(254.0 / (high - low))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0.0, 254.0, out=scaled)
    scaled += 1.0
    if pixels.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return scaled.astype(np.uint8)
