"""Lines and images that are hard to draw, by name: for a bare page and, from a notebook, for a real one."""

from __future__ import annotations

import numpy as np

K = np.arange(400)
FLIP = K % 2
ANGLE = K / 7
HALVES = np.stack([np.cos(ANGLE / 2), *(np.sin(ANGLE / 2) / 3**0.5,) * 3])

LINES = {
    "one ulp": np.where(FLIP, 1.0, np.nextafter(1, 2)),
    "sin²+cos²": np.sin(ANGLE) ** 2 + np.cos(ANGLE) ** 2,
    "norms of quaternions": np.sqrt((HALVES**2).sum(axis=0)),
    "429 THz ± 0.06 Hz": np.where(FLIP, 429e12 - 0.0625, 429e12 + 0.0625),
    "1.77e9 ± 2.4e-7": np.where(FLIP, 1.77e9, np.nextafter(1.77e9, 2e9)),
    "i8 1e17 and 1e17+16": (10**17 + 16 * FLIP).astype("i8"),
    "2**53 and 2**53+2": 2.0**53 + 2 * FLIP,
    "u8 near 2**64": np.uint64(2**64 - 1) - FLIP.astype("u8"),
    "subnormals": FLIP * 5e-324,
    "±1e308": 1e308 * (2 * FLIP - 1),
    "the largest": np.full(400, np.finfo("f8").max),
    "i8 1e17+1 and 1e17+3": (10**17 + 1 + 2 * FLIP).astype("i8"),
    "i8 from end to end": np.where(FLIP, -(2**63), 2**63 - 1),
    "all equal": np.full(400, 7.25),
    "zero": np.zeros(400),
    "minus zero and zero": np.where(FLIP, -0.0, 0.0),
    "negative, one ulp": -np.where(FLIP, 1e-5, np.nextafter(1e-5, 1)),
    "NaN": np.full(400, np.nan),
    "inf": np.where(FLIP, np.inf, -np.inf),
    "1e300 among ones": np.where(K == 200, 1e300, 1 + 1e-15 * FLIP),
    "a single value": np.array([42.0]),
    "float32, one ulp": np.where(FLIP, np.float32(1), np.nextafter(np.float32(1), np.float32(2))),
    "float16": np.where(FLIP, np.float16(1), np.float16(65504)),
    "bool": FLIP > 0,
}
"""Values of each line."""

RAMP = np.arange(256).reshape(16, 16)

IMAGES = {
    "u8 2**53": np.full((16, 16), 2**53, "u8"),
    "f8 1e17": np.full((16, 16), 1e17),
    "u8 saturated": np.full((16, 16), 2**64 - 1, "u8"),
    "u8 saturated, RGB": np.full((16, 16, 3), 2**64 - 1, "u8"),
    "u4 2**31 and more": (RAMP + 2**31).astype("u4"),
    "±1e308": 1e308 * (RAMP / 128 - 1),
    "1e-310": 1e-310 * (1 + RAMP),
    "NaN": np.full((16, 16), np.nan),
    "inf, NaN and numbers": np.where(RAMP % 3, RAMP, [np.inf, -np.inf] * 8).astype("f4"),
    "u8 2**63 and more": RAMP.astype("u8") + np.uint64(2**63),
    "the largest": np.full((16, 16), np.finfo("f8").max),
    "bool": RAMP % 2 > 0,
    "big-endian u2": (RAMP * 200).astype(">u2"),
}
"""Pixels of each image."""
