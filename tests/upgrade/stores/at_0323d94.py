"""Make ``at_0323d94.zip``: recordings as labhub wrote them at 0323d94, and the key that signed them.

Run with that commit installed, as ``python tests/upgrade/stores/at_0323d94.py``. What it made is kept, so that newer
versions go on reading it. ``whole.zarr`` was closed in order; the recorder of ``cut_off.zarr`` was killed while it
recorded. Both hold `N` slots or more of the channel ``x``: 0, 1, 2 and so on, in volts.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

N = 50


def record(store: Path, *, killed: bool) -> None:
    """Record the channel into a store, and end in order or not."""
    import numpy as np

    from labhub.hub import connect, named_broker

    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with connect() as hub, hub.producer("x", dtype="f8", units="V") as p, hub.record("x", store=store) as rec:
            p.write_many(np.arange(float(N)))
            if killed:
                deadline = time.monotonic() + 30
                while rec.status.stored < N and time.monotonic() < deadline:
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Make both stores, each in a process of its own, and pack them with the key."""
    made = Path(tempfile.mkdtemp())
    for name in ("shm", "runtime", "data", "config"):
        (made / name).mkdir(mode=0o700)
        os.environ[f"LABHUB_{name.upper()}_DIR"] = str(made / name)
    packed = made / "packed"
    packed.mkdir()
    for name, killed in ("whole", False), ("cut_off", True):
        if (pid := os.fork()) == 0:
            record(packed / f"{name}.zarr", killed=killed)
            os._exit(0)
        os.waitpid(pid, 0)
    for key in (made / "data").rglob("client*"):
        shutil.copy(key, packed)
    shutil.make_archive(str(Path(__file__).with_suffix("")), "zip", packed)
    shutil.rmtree(made)


if __name__ == "__main__":
    sys.exit(main())
