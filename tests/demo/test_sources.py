"""The demo's input is what it says it is."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from labhub.cli.demo import recording
from labhub.cli.demo.heart import HeartRate
from labhub.cli.demo.sources import Camera, HostSensors, Pulse, torn_frames


class FakeProducer:
    """Keeps what a source writes."""

    def __init__(self, shape=(), dtype=np.uint8):
        self.records = []
        self._shape, self._dtype = shape, dtype

    @property
    def next_seq(self):
        return len(self.records)

    def write(self, record):
        self.records.append(np.array(record))
        return len(self.records) - 1

    @contextmanager
    def slot(self):
        array = np.zeros(self._shape, self._dtype)
        yield SimpleNamespace(array=array)
        self.records.append(array)


def test_the_recordings_have_the_rates_that_heartpy_documents():
    rates = {name: recording.load(name).sample_rate for name in ("data.csv", "data2.csv", "data3.csv")}
    assert rates == pytest.approx({"data.csv": 100.0, "data2.csv": 116.99, "data3.csv": 100.42}, abs=0.01)


def test_the_heart_rate_of_the_first_recording_is_the_known_one():
    signal = recording.load("data.csv")
    meter = HeartRate(signal.sample_rate)
    rates = [meter.update(block) for block in np.array_split(signal.samples, 120)]
    assert rates[0] is None
    assert 56 < rates[-1] < 62


def test_a_flat_line_has_no_heart_rate():
    assert HeartRate(100.0).update(np.full(2000, 512)) is None


def test_without_heartpy_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(recording.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(recording.LabHubError, match=r"pip install 'labhub\[demo\]'"):
        recording.load()


def test_without_scipy_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(recording.LabHubError, match=r"pip install 'labhub\[demo\]'"):
        HeartRate(100.0)


def test_the_pulse_plays_the_recording_to_its_end_and_not_again():
    source, producer = Pulse(), FakeProducer()
    signal = recording.load("data3.csv")
    while source.write(producer):
        pass
    played = np.concatenate(producer.records)
    np.testing.assert_array_equal(played, signal.samples[: len(played)])
    assert len(signal.samples) - len(played) < len(producer.records[0])
    assert source.period * signal.sample_rate == pytest.approx(len(producer.records[0]))


def test_sensors_show_the_work_of_this_machine():
    source, producer = HostSensors(), FakeProducer()
    assert set(source.declaration["units"]) == set(source.declaration["dtype"].names)
    deadline = time.monotonic() + 10.0
    # Work that the load must show; the kernel counts it in steps of 10 ms.
    while time.monotonic() < deadline:
        source.write(producer)
        record = producer.records[-1]
        if max(record[name] for name in record.dtype.names if name.startswith("cpu")) > 20.0:
            break
    assert record["memory"] > 1e6
    assert max(record[name] for name in record.dtype.names if name.startswith("cpu")) > 20.0


def test_a_frame_of_two_slots_is_noticed():
    source, producer = Camera(), FakeProducer((1024, 1024))
    for _ in range(3):
        source.write(producer)
    frames = np.stack(producer.records)
    seqs = np.arange(3, dtype=np.uint64)
    assert torn_frames(frames, seqs) == 0
    frames[1, 1000:] = frames[2, 1000:]
    assert torn_frames(frames, seqs) == 1
    assert torn_frames(frames[::-1], seqs) == 3
