"""Inside the kernel of a background producer: it ends, in order, when the kernel that started it is gone."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from functools import partial

from labhub.tasks import Task

GRACE = 0.6
"""How long the cell may take to leave its ``with`` blocks (in seconds); ipykernel's own poller ends it within 1 s."""


def follow_parent(parent: int, directory: str) -> None:
    """End when the process `parent` ends, and remove its directory then."""
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:
        return  # it is gone already, or this is not Linux: ipykernel's poller sees to it
    # Also if the orderly end fails: nobody is left who could stop a producer whose notebook is gone.
    Task(partial(_wait_and_end, descriptor, directory), "labhub-parent", failed=lambda _: os._exit(1)).start()


def _wait_and_end(descriptor: int, directory: str) -> None:
    select.select([descriptor], [], [])
    os.kill(os.getpid(), signal.SIGINT)  # as the Stop button would: the cell leaves its with blocks
    hubs = sys.modules.get("labhub.hub.connecting")
    if hubs is not None:
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and not all(hub.idle for hub in hubs.open_hubs()):
            time.sleep(0.01)
        for hub in hubs.open_hubs():
            try:
                hub.close()
            except Exception:  # noqa: BLE001  nobody is left to be told; the broker buries what stays behind
                continue
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)
