"""A client whose network to the broker is cut and comes back, again and again; in a network namespace of its own.

``unshare -rn python -m tests.faults.cut_off`` cuts once for each line on its standard input, and prints how long the
client took to be back in the directory (in seconds).
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import time

from labhub.errors import BrokerUnreachable
from labhub.hub import Hub, connect, start_broker, stop_broker
from tests.conftest import wait_until

TIMEOUT = 1.0
PATIENCE = 60.0


def loopback(state: str) -> None:
    """Turn the only network of the namespace on or off."""
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def listed(hub: Hub) -> list[tuple[str, str]]:
    """What the broker knows."""
    return [(channel.name, channel.liveness) for channel in hub.channels()]


def cut_and_mend(hub: Hub, flow: object) -> float:
    """Cut the network, look at what a user sees meanwhile, mend it; the time until everything is as before."""
    loopback("down")
    wait_until(lambda: flow() and hub.status != "connected", PATIENCE, "a status that tells of the cut")
    began = time.monotonic()
    try:
        hub.channels()
    except BrokerUnreachable:
        assert time.monotonic() - began < TIMEOUT + 1.0
    else:
        raise AssertionError("the broker answered through a cut network")
    assert flow()
    loopback("up")
    mended = time.monotonic()
    wait_until(lambda: flow() and hub.status == "connected", PATIENCE, "a status that tells of the return")
    wait_until(lambda: flow() and listed(hub) == [("x", "alive")], PATIENCE, "the channel in the directory")
    return time.monotonic() - mended


def main() -> None:
    """Obey."""
    loopback("up")
    start_broker(endpoint="tcp://127.0.0.1:0")
    atexit.register(stop_broker)
    with connect(timeout=TIMEOUT) as hub, hub.producer("x", dtype="i8") as p, hub.consumer("x", mode="lossless") as c:

        def flow() -> bool:
            """Data go on: what is written now is read now, without the broker."""
            seq = p.write(p.next_seq)
            (batch,) = c.batches(timeout=5, total=1)
            return bool(batch.data[0] == seq)

        for _ in sys.stdin:
            print(cut_and_mend(hub, flow), flush=True)


if __name__ == "__main__":
    main()
