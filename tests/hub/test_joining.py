"""A lossless reader that joins a running producer keeps the history that it was promised."""

from __future__ import annotations

import pytest

from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer

PRODUCER = """
import sys, time
import numpy as np
from labhub import Schema
from labhub.datablock.producer import open_producer
with open_producer("x", Schema.infer(dtype="i8", shape=8), capacity=64, evict_after=None, timeout=60) as p:
    value = np.zeros(8, "i8")
    many = np.zeros((40, 8), "i8")
    pause, run = float(sys.argv[1]), sys.argv[2] == "many"
    while True:
        if run:
            many[:] = np.arange(p.next_seq, p.next_seq + 40)[:, None]
            p.write_many(many)
        else:
            value[:] = p.next_seq
            p.write(value)
        if p.next_seq > 200 and p.next_seq < 300:
            print("full", flush=True)
        if pause:
            time.sleep(pause)
"""
JOINS = 60


@pytest.mark.parametrize(("pause", "how"), [("0.0001", "one"), ("0", "one"), ("0.0005", "many")])
def test_history_is_kept_from_the_first_look_on(run_elsewhere, pause: str, how: str) -> None:
    process = run_elsewhere(f"import sys; sys.argv[1:] = [{pause!r}, {how!r}]\n{PRODUCER}")
    assert process.stdout.readline()
    for join in range(JOINS):
        with open_consumer("x", mode="lossless", start="oldest") as c:
            first = c.cursor
            assert c.lag >= 64 - 16 - 1  # what is written just then takes the place of the oldest ones
            if join % 2:
                for seq in range(first, first + 100):
                    with c.slot(timeout=10) as slot:
                        assert (slot.seq, int(slot.array.view("i8")[0])) == (seq, seq)
            else:
                batch = next(c.batches(min_slots=100, max_slots=100, timeout=10))
                assert batch.seq.tolist() == list(range(first, first + 100))
                assert (batch.data.view("i8").reshape(100, -1)[:, 0] == batch.seq).all()
                assert batch.lost == 0
            assert c.lost == 0
    process.kill()
    process.wait(60)
    open_producer("x", Schema.infer(dtype="i8", shape=8), capacity=64).close()
