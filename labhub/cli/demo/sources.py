"""What the demo's three producers measure, play and film."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil

from labhub.cli.demo import recording

SENSOR_RATE = 50.0
# Rates and loads are those of the last half second: the kernel counts processor time in steps of 10 ms.
SENSOR_WINDOW = 0.5
PULSE_SAMPLES_PER_SLOT = 20
FRAME_SHAPE = (1024, 1024)
FRAME_RATE = 120.0
STAMP_NBYTES = 8


class SlotWriter(Protocol):
    """What a source needs of a producer."""

    @property
    def next_seq(self) -> int:
        """Seq that the next slot will get."""

    def write(self, record: Any) -> int:
        """Write one slot."""

    def slot(self) -> Any:
        """Open the next slot in place."""


class Source(Protocol):
    """One channel's input.

    Attributes
    ----------
    channel : str
        Its name.
    period : float
        Time between two slots (in seconds).
    declaration : dict
        Keyword arguments of `Hub.producer`.
    """

    channel: str
    period: float
    declaration: dict[str, Any]

    def write(self, producer: SlotWriter) -> bool:
        """Write the next slot; False when the source has come to its end."""


class HostSensors:
    """Sensors of this machine: load of each processor, memory, network, disk, temperatures where present."""

    channel = "host.sensors"
    period = 1.0 / SENSOR_RATE

    def __init__(self) -> None:
        first = dict(self._gauges())
        counters = dict(self._counters())
        self._history: deque[tuple[float, dict[str, float]]] = deque([(time.monotonic(), counters)])
        units = {name: "percent" if name.startswith("cpu") else "byte/s" for name in counters}
        units |= {name: "byte" if name == "memory" else "degC" for name in first}
        self._dtype = np.dtype([(name, np.float64) for name in units])
        self.declaration: dict[str, Any] = {"dtype": self._dtype, "units": units}

    def write(self, producer: SlotWriter) -> bool:
        """Read every sensor now and write the record."""
        values = self._rates() | dict(self._gauges())
        # A sensor that vanished, an unplugged card for example, reads as not-a-number.
        producer.write(np.array([tuple(values.get(name, np.nan) for name in self._dtype.names or ())], self._dtype)[0])
        return True

    def _rates(self) -> dict[str, float]:
        now, counters = time.monotonic(), dict(self._counters())
        self._history.append((now, counters))
        while len(self._history) > 2 and now - self._history[0][0] > SENSOR_WINDOW:
            self._history.popleft()
        then, before = self._history[0]
        return {name: (value - before.get(name, value)) / (now - then) for name, value in counters.items()}

    @staticmethod
    def _counters() -> Iterator[tuple[str, float]]:
        for index, times in enumerate(psutil.cpu_times(percpu=True)):
            # In hundredths of a second, so that the increase per second is the load in percent.
            yield f"cpu{index}", 100.0 * (sum(times) - times.idle - getattr(times, "iowait", 0.0))
        if network := psutil.net_io_counters():
            yield "net_received", network.bytes_recv
            yield "net_sent", network.bytes_sent
        if disk := psutil.disk_io_counters():
            yield "disk_read", disk.read_bytes
            yield "disk_written", disk.write_bytes

    @staticmethod
    def _gauges() -> Iterator[tuple[str, float]]:
        yield "memory", psutil.virtual_memory().used
        # psutil has no temperatures on macOS and Windows.
        for chip, sensors in getattr(psutil, "sensors_temperatures", dict)().items():
            for index, sensor in enumerate(sensors):
                yield f"temperature_{chip}_{index}", sensor.current


class Pulse:
    """A recorded photoplethysmogram, played at its true rate in blocks of samples."""

    channel = "bio.ppg"

    def __init__(self) -> None:
        signal = recording.load()
        n_slots = len(signal.samples) // PULSE_SAMPLES_PER_SLOT
        self._slots = iter(signal.samples[: n_slots * PULSE_SAMPLES_PER_SLOT].reshape(n_slots, PULSE_SAMPLES_PER_SLOT))
        self.period = PULSE_SAMPLES_PER_SLOT / signal.sample_rate
        self.declaration: dict[str, Any] = {
            "dtype": signal.samples.dtype,
            "shape": (PULSE_SAMPLES_PER_SLOT,),
            "dims": ("time",),
            "sample_rate": signal.sample_rate,
            "units": "adc",
            "attrs": {"recording": f"heartpy/{signal.name}"},
        }

    def write(self, producer: SlotWriter) -> bool:
        """Write the next block; False at the end of the recording, which is not played again."""
        block = next(self._slots, None)
        if block is None:
            return False
        producer.write(block)
        return True


class Camera:
    """Frames of 1 MiB, filled in place; each of their rows starts with the seq of its slot."""

    channel = "cam.frames"
    period = 1.0 / FRAME_RATE

    def __init__(self) -> None:
        self._scene = np.random.default_rng(0).integers(0, 256, FRAME_SHAPE, dtype=np.uint8)
        self.declaration: dict[str, Any] = {
            "dtype": np.dtype(np.uint8),
            "shape": FRAME_SHAPE,
            "dims": ("row", "column"),
            "units": "adc",
            "capacity": 16,
        }

    def write(self, producer: SlotWriter) -> bool:
        """Fill the next frame in place and stamp it."""
        seq = producer.next_seq
        with producer.slot() as slot:
            np.copyto(slot.array, self._scene)
            slot.array[:, :STAMP_NBYTES] = np.frombuffer(seq.to_bytes(STAMP_NBYTES, "little"), dtype=np.uint8)
        return True


def torn_frames(frames: npt.NDArray[np.uint8], seqs: npt.NDArray[np.uint64]) -> int:
    """Count the frames that are not whole.

    Parameters
    ----------
    frames : array of shape (n_frames, 1024, 1024), uint8
        As written by `Camera`.
    seqs : array of shape (n_frames,), uint64
        The seq that each frame was delivered with.

    Returns
    -------
    int
        Frames in which any row has another stamp than the frame's seq.
    """
    stamps = np.ascontiguousarray(frames[:, :, :STAMP_NBYTES]).view("<u8")[..., 0]
    return int(np.count_nonzero((stamps != seqs[:, np.newaxis]).any(axis=1)))


SOURCES = {source.channel: source for source in (HostSensors, Pulse, Camera)}
