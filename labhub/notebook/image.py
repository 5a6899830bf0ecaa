"""Frames for the browser: which field of a slot is an image, and how it becomes few bytes.

Values are subtracted before they are rounded: whole numbers as whole numbers, others as float64 where float32 would
lose a part of the range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from labhub.errors import InvalidArgument
from labhub.schema import Schema, leaves

RGB = 3
SAMPLE_PIXELS = 20_000
"""About so many pixels decide the automatic range."""

STEPS = 254
"""Steps of the codes, from 1 to 255."""

EXACT = 2**53
"""Whole numbers up to this one are float64 numbers without rounding."""

LARGE = 2.0**1000
"""Sums and differences of numbers up to this size are finite."""

Number = TypeVar("Number", int, float)


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
        The mean of those that are finite numbers, or the first of them.

    Returns
    -------
    ndarray
        For a mean float32 of small whole numbers, the nearest whole number of those beyond 2**53, else float64. Where
        no pixel of a block is finite it is infinite if one is, else NaN. For a stride as `pixels`.
    """
    if factor == 1:
        return pixels
    if how == "stride":
        return pixels[::factor, ::factor]
    if pixels.dtype.kind == "f":
        return _mean_of_finite(pixels, factor)
    if pixels.dtype.itemsize < 8:
        # A sum of float32 numbers is exact up to 2**24.
        few = pixels.dtype.itemsize == 1 or (pixels.dtype.itemsize == 2 and factor <= 16)
        return _mean(pixels, factor, np.float32 if few else np.float64)
    low = int(pixels.min())
    return _as_whole(low, _mean(_above(pixels, low), factor, np.float64), pixels.dtype)


def _mean(pixels: NDArray[Any], factor: int, dtype: type) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    total = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0, dtype=dtype), columns, axis=1)
    counts: NDArray[Any] = np.outer(np.diff(rows, append=height), np.diff(columns, append=width)).astype(dtype)
    mean: NDArray[Any] = total / counts.reshape(*counts.shape, *(1,) * (pixels.ndim - 2))
    return mean


def _mean_of_finite(pixels: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """The mean of the finite numbers of each block; where there are none, an infinity before NaN."""
    finite = np.isfinite(pixels)
    whole = bool(finite.all())
    numbers = pixels if whole else np.where(finite, pixels, 0)
    if float(np.abs(numbers).max()) < LARGE / factor**2:
        mean = _mean(numbers, factor, np.float64)
    else:  # a sum of them need not be a number
        mean = _mean(numbers / (2 * factor**2), factor, np.float64) * (2 * factor**2)
    if whole:
        return mean
    share = _mean(finite, factor, np.float64)
    rows, columns = np.arange(0, pixels.shape[0], factor), np.arange(0, pixels.shape[1], factor)
    other = np.fmax.reduceat(np.fmax.reduceat(np.where(finite, np.nan, pixels), rows, axis=0), columns, axis=1)
    return np.where(share > 0, mean / np.where(share > 0, share, 1), other)


def _above(pixels: NDArray[Any], low: int) -> NDArray[np.uint64]:
    """How far whole numbers of 8 bytes are above one that is not above any of them, exactly."""
    return pixels.astype(np.uint64) - np.uint64(low % 2**64)


def _as_whole(low: int, above: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers above a whole one: as float64 if that tells them apart, else as whole numbers."""
    if max(abs(low), abs(low + int(above.max()))) <= EXACT:
        return above + low
    largest = np.nextafter(2.0**64, 0.0)  # of those that are uint64 numbers
    whole = np.rint(np.minimum(above, largest)).astype(np.uint64) + np.uint64(low % 2**64)
    return whole.astype(dtype.newbyteorder("="))


def range_of(pixels: NDArray[Any], low: float | None, high: float | None, percent: float) -> tuple[float, float]:
    """Return the range of values to show: as given, else without the outermost `percent` at either end.

    Whole numbers beyond 2**53 give whole numbers. The second value is always the greater one, also for a frame of one
    value or of none.
    """
    if low is None or high is None:
        step = max(1, pixels.size // SAMPLE_PIXELS)
        found = _percentiles(pixels.ravel()[::step], percent)
        if low is None:
            low = found[0] if high is None or found[0] < high else _beside(high, -1)
        if high is None:
            high = found[1] if found[1] > low else _beside(low, +1)
    if not low < high:  # the largest number there is has none beside it
        low = _beside(high, -1)
    return low, high


def _percentiles(some: NDArray[Any], percent: float) -> tuple[float, float]:
    """Percentiles of the finite numbers, 0 and 1 if there are none."""
    if some.dtype.kind in "iu" and some.dtype.itemsize == 8:
        base = int(some.min())
        if max(abs(base), abs(int(some.max()))) > EXACT:
            low, high = np.percentile(_above(some, base).astype(np.float64), [percent, 100 - percent])
            return base + math.floor(low), base + math.ceil(high)
    some = some.astype(np.float64)
    some = some[np.isfinite(some)]
    if not len(some):
        return 0.0, 1.0
    large = 1.0 if np.abs(some).max() < LARGE else 4.0
    low, high = np.percentile(some / large, [percent, 100 - percent]) * large
    return float(low), float(high)


def _beside(value: Number, sign: int) -> Number:
    """A value at such a distance that a range between the two can be shown."""
    if isinstance(value, int):
        return value + sign
    beside = value + sign * max(1.0, STEPS * math.ulp(value))
    return float(beside) if math.isfinite(beside) else value


def quantised(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return a byte for each value: from 1 for `low` (and less) to 255 for `high` (and more), 0 for no number."""
    dtype = pixels.dtype
    if dtype.kind == "b":
        return quantised(pixels.view(np.uint8), low, high)
    if dtype.kind in "iu" and dtype.itemsize == 8 and max(abs(low), abs(high)) > EXACT:
        return _codes_of_large(pixels, math.floor(low), math.ceil(high))
    return _codes(pixels, low, high)


def _codes_of_large(pixels: NDArray[Any], low: int, high: int) -> NDArray[np.uint8]:
    """Codes of whole numbers of 8 bytes, of which float64 would round some."""
    bounds = np.iinfo(pixels.dtype)
    bottom, top = max(low, int(bounds.min)), min(high, int(bounds.max))
    if bottom > top:  # every pixel is beyond the range
        return np.full(pixels.shape, 255 if high < bounds.min else 1, np.uint8)
    above = _above(np.clip(pixels, bottom, top), bottom).astype(np.float64)
    return _codes(above, float(low - bottom), float(high - bottom))


def _codes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Codes of values that are floating-point numbers, or whole ones that float64 does not round."""
    size, span = max(abs(low), abs(high)), high - low
    # float32 is faster, and enough if it has more digits than a code has of its range.
    single = span > 1e-30 and size < min(1e30, span * 2**10)
    with np.errstate(over="ignore"):  # what is so far beyond the range is at its end all the same
        scaled: NDArray[Any] = values.astype(np.float32 if single else np.float64)
        if not 2.0**-900 < span < LARGE:  # so large or small that the factor would be no number
            exponent = -math.frexp(size)[1]
            scaled = np.ldexp(np.clip(scaled, low, high), exponent)
            low, high = math.ldexp(low, exponent), math.ldexp(high, exponent)
        np.subtract(scaled, low, out=scaled)
        np.multiply(scaled, STEPS / (high - low), out=scaled)
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0.0, float(STEPS), out=scaled)
    np.add(scaled, 1.0, out=scaled)
    if values.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False, nan=0.0)
    return scaled.astype(np.uint8)
