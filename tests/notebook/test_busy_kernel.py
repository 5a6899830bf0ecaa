"""A real kernel: frames go on while a cell computes, and the plot's reader goes with the kernel."""

from __future__ import annotations

import queue
import time

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


def frames_until_idle(client, request):
    """Count the frames that come while a cell runs; (frames, what else it sent)."""
    frames, others = 0, []
    while True:
        message = client.get_iopub_msg(timeout=60)
        kind, content = message["msg_type"], message["content"]
        if kind == "comm_msg" and content["data"].get("method") == "custom":
            frames += bool(message["buffers"])
        elif kind == "status" and message["parent_header"].get("msg_id") == request:
            if content["execution_state"] == "idle":
                return frames, others
        elif kind in ("error", "stream"):
            others.append(content)


def test_frames_go_on_while_a_cell_computes(hub, wait_until):
    with hub.producer("x", dtype="f8") as producer:
        manager, client = start_new_kernel()
        try:
            _, others = frames_until_idle(client, client.execute(START))
            assert not others
            request = client.execute(BUSY)
            deadline = time.monotonic() + 60
            frames = 0
            while True:  # writes as it listens
                producer.write(time.monotonic())
                try:
                    message = client.get_iopub_msg(timeout=0.01)
                except queue.Empty:
                    assert time.monotonic() < deadline
                    continue
                content = message["content"]
                assert message["msg_type"] not in ("error", "stream"), content
                if message["msg_type"] == "comm_msg":
                    frames += bool(message["buffers"])
                if content.get("execution_state") == "idle" and message["parent_header"].get("msg_id") == request:
                    break
            assert frames >= 10
            print("frames in 2 s", frames)
            assert len(labhub.diagnose("x", segment_directory("default")).readers) == 1
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
        wait_until(lambda: not labhub.diagnose("x", segment_directory("default")).readers)
