"""How long a ring is: in slots, in seconds, or by default."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from labhub import Schema
from labhub.datablock import sizing
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import default_capacity, segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import InvalidArgument
from tests.faults.test_space import on_a_small_tmpfs

FRAME = Schema.infer(dtype="u2", shape=(48, 64), dims=("y", "x"))
BLOCK = Schema.infer(np.zeros((100, 4), "f4"), dims=("time", "channel"), sample_rate=1000)
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("schema", "rate", "per_second"),
    [
        (BLOCK, None, 10.0),
        (Schema.infer(np.zeros((4, 250), "i2"), dims=("channel", "time"), sample_rate=500), None, 2.0),
        (Schema.infer(np.zeros((1, 2, 3)), dims=("time", "y", "x"), sample_rate=25), None, 25.0),
        (FRAME, None, None),
        (FRAME, 60, 60.0),
        (FRAME, np.float32(0.5), 0.5),
        (None, 7, 7.0),
    ],
)
def test_how_many_slots_come_per_second(schema: Schema, rate: Any, per_second: float | None) -> None:
    assert sizing.rate_of(schema, rate) == per_second


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), "60", True, [1]])
def test_what_is_no_rate(rate: Any) -> None:
    with pytest.raises(InvalidArgument, match="rate is a positive number of slots per second"):
        open_producer("x", FRAME, rate=rate)


@pytest.mark.parametrize(
    ("schema", "options", "why"),
    [
        (FRAME, {"history": 10.0}, "give rate= as well"),
        (BLOCK, {"history": 10.0, "capacity": 5}, "give one of them"),
        (BLOCK, {"rate": 10.0}, "leave out rate"),
        (BLOCK, {"history": 0}, "history is a positive number of seconds, not 0"),
        (BLOCK, {"history": "long"}, "history is a positive number of seconds, not 'long'"),
        (BLOCK, {"capacity": 0}, "capacity must be"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(schema: Schema, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        open_producer("x", schema, **options)


@pytest.mark.parametrize(("history", "rate"), [(10.0, 60.0), (0.1, 30), (0.7, 3), (2, 0.5), (1e-6, 1), (0.3, 10)])
def test_a_ring_reaches_back_as_far_as_it_was_asked_to(history: float, rate: float) -> None:
    with open_producer("x", FRAME, history=history, rate=rate) as p, open_consumer("x", FRAME) as c:
        assert p.history is not None
        assert history - 1e-9 <= p.history <= history + 1.01 / rate
        for k in range(3 * p.capacity):
            with p.slot() as s:
                s.timestamp_ns = round((100 + k / rate) * SECOND)
        with p.slot() as s:  # the next one is being written
            s.timestamp_ns = round((100 + 3 * p.capacity / rate) * SECOND)
            snapshot = c.snapshot(seconds=history)
            assert snapshot.complete
            assert len(snapshot) > history * rate - 1e-6
        assert not c.snapshot(seconds=2 * history + 3 / rate).complete


def test_a_default_ring_reaches_back_two_seconds_at_least(caplog: pytest.LogCaptureFixture) -> None:
    default = default_capacity(FRAME.slot_nbytes, segment_directory())
    with caplog.at_level(logging.INFO, "labhub"):
        with open_producer("x", FRAME, rate=1000) as p:  # 1357 of its frames are 8 MB
            assert (p.capacity, p.history) == (2003, 2.0)
        with open_producer("y", FRAME, rate=1) as p:
            assert (p.capacity, p.history) == (default, default - 3)
        with open_producer("z", FRAME) as p:
            assert (p.capacity, p.history) == (default, None)
        with open_producer("w", FRAME, capacity=33, rate=10) as p:
            assert (p.capacity, p.history) == (33, 3.0)
    told = [(r.fields["channel"], r.fields["capacity"]) for r in caplog.records if r.event == "ring_sized"]
    assert told == [("x", 2003), ("y", default)]


def test_a_default_ring_takes_a_quarter_of_what_is_free_at_most() -> None:
    out = on_a_small_tmpfs("""
import logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
for left in (1024, 512):
    (base / "filler").write_bytes(bytes(free() - left * 1024))
    room = free()
    with open_producer("x", KIB, rate=1000) as p:
        assert p.capacity < 2000
        assert room / 8 < room - free() <= room / 4, (room, free(), p.capacity)
    del p  # and its mapping
    (base / "filler").unlink()
with open_producer("x", KIB, rate=10) as p:  # 23 slots
    assert (p.capacity, p.history) == (23, 2.0)
    print("small enough")
""")
    lines = out.splitlines()
    assert "instead of 2 s" in lines[0]
    assert "LABHUB_SHM_DIR" in lines[0]
    assert lines[-1] == "small enough"


def test_a_segment_left_behind_is_taken_over_however_much_is_free_now() -> None:
    out = on_a_small_tmpfs("""
import subprocess
DYING = '''
import os
from labhub import Schema
from labhub.datablock.producer import open_producer
p = open_producer("x", Schema.infer(dtype="u1", shape=(1024,)), rate=1000)
p.write(bytes(1024))
print(p.capacity, flush=True)
os._exit(0)
'''
before = int(subprocess.run([sys.executable, "-c", DYING], capture_output=True, text=True, check=True).stdout)
(base / "filler").write_bytes(bytes(free() - 8192))
with open_producer("x", KIB, rate=1000) as p:
    print(p.took_over, p.capacity == before, p.next_seq)
""")
    assert out == "True True 1\n"
