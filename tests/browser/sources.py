"""A producer process: python sources.py; ends when its standard input does."""

from __future__ import annotations

import math
import sys
import threading
import time

import numpy as np

import labhub

PERIOD = 0.02
SAMPLES = 20


def main() -> None:
    """Write a pressure, a temperature, a two-lead signal of 1 kHz and a camera, until nobody wants them."""
    done = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
    hub = labhub.connect(start=True)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:480, 0:900]
    with (
        hub.producer("pump.pressure", dtype="f8", units="bar") as pressure,
        hub.producer("pump.temperature", dtype="f8", units="°C") as temperature,
        hub.producer("ecg", dtype="f4", shape=(SAMPLES, 2), dims=("time", "lead"), sample_rate=1000, units="mV") as ecg,
        hub.producer("cam", dtype="u2", shape=(480, 900), units="counts", capacity=8) as cam,
    ):
        due = time.monotonic()
        k = 0
        while not done.is_set():
            t = k * PERIOD
            pressure.write(1.0 + 0.2 * math.sin(2 * math.pi * t / 3) + rng.normal(0, 0.01))
            if k % 5 == 0:
                temperature.write(21.0 + 0.5 * math.sin(2 * math.pi * t / 10))
            beat = (t + np.arange(SAMPLES) / 1000) % 0.8
            wave = np.exp(-(((beat - 0.3) / 0.01) ** 2)) + 0.15 * np.sin(7.85 * beat)
            ecg.write(np.stack([wave, -0.6 * wave], axis=1).astype("f4"))
            if k % 2 == 0:
                spot = np.exp(-((x - 450 - 300 * math.sin(t)) ** 2 + (y - 240) ** 2) / 9000)
                cam.write((spot * 3000 + 100 + (x + y) / 20).astype("u2"))
            k += 1
            due += PERIOD
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
