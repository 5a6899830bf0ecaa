"""A real kernel: frames go on while a cell computes, and the plot's reader goes with the kernel."""

from __future__ import annotations

import queue
import time

import pytest
from jupyter_client.manager import start_new_kernel

import labhub
from labhub.datablock.location import segment_directory

START = """
import labhub
hub = labhub.connect()
plot = labhub.LivePlot("x", hub=hub, window=5)
plot
"""

BUSY = """
import time, numpy as np
begin, a = time.monotonic(), np.random.rand(100, 100)
while time.monotonic() - begin < 2:
    sum(k * k for k in range(5000))
    a = np.sin(a @ a)
"""


def run(client, code, meanwhile=lambda: None):
    """Run a cell; how many frames came until it was done. It may print nothing and raise nothing."""
    request, frames = client.execute(code), 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        meanwhile()
        try:
            message = client.get_iopub_msg(timeout=0.01)
        except queue.Empty:
            continue
        content = message["content"]
        assert message["msg_type"] not in ("error", "stream"), content
        frames += message["msg_type"] == "comm_msg" and bool(message["buffers"])
        if content.get("execution_state") == "idle" and message["parent_header"].get("msg_id") == request:
            return frames
    pytest.fail("the cell did not end")


def test_frames_go_on_while_a_cell_computes(hub, wait_until):
    with hub.producer("x", dtype="f8") as producer:
        manager, client = start_new_kernel()
        try:
            run(client, START)
            assert run(client, BUSY, meanwhile=lambda: producer.write(time.monotonic())) >= 10
            assert len(labhub.diagnose("x", segment_directory("default")).readers) == 1
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
        wait_until(lambda: not labhub.diagnose("x", segment_directory("default")).readers)
