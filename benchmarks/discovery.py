"""How long the broker takes to find a channel, with one channel registered and with up to 10,000.

Run it with ``python benchmarks/discovery.py [RESULT.json]``: a real broker and a real client over loopback, CURVE on.
"""

from __future__ import annotations

import os
import random
import statistics
import time

from common import private_directories, report

from labhub.broker import BrokerConfig, BrokerService
from labhub.messenger import Messenger, ProducerInfo

QUESTIONS = 2000
CHANNELS = (1, 10, 100, 1000, 10_000)


def register(messenger: Messenger, names: list[str]) -> float:
    """Register channels that have no segment; how long that took (in seconds)."""
    began = time.perf_counter()
    for start in range(0, len(names), 200):
        pending = [
            messenger.register_producer(name, ProducerInfo(name, os.getpid(), bytes(32), 1))
            for name in names[start : start + 200]
        ]
        for future in pending:
            future.result(30)
    return time.perf_counter() - began


def ask(messenger: Messenger, names: list[str]) -> dict[str, float]:
    """Discover channels one after the other; milliseconds of one."""
    chance = random.Random(1)
    taken = []
    for _ in range(QUESTIONS):
        name = chance.choice(names)
        began = time.perf_counter()
        found = messenger.discover_producer(name)
        taken.append((time.perf_counter() - began) * 1e3)
        assert found is not None, name
    return {
        "median_ms": statistics.median(taken),
        "p99_ms": statistics.quantiles(taken, n=100)[98],
        "max_ms": max(taken),
    }


def measured() -> dict[int, dict[str, float]]:
    """Return, for each number of channels, how long discoveries take and registering one channel took."""
    names = [f"channel.{k:05}" for k in range(CHANNELS[-1])]
    result = {}
    config = BrokerConfig(endpoint="tcp://127.0.0.1:0", max_channels_per_key=len(names))
    with private_directories(), BrokerService(config) as broker, Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        known = 0
        for count in CHANNELS:
            taken = register(messenger, names[known:count])
            found = ask(messenger, names[:count])
            result[count] = found | {"registration_ms": taken * 1e3 / (count - known)}
            known = count
    return result


def main() -> None:
    """Measure and report."""
    found = measured()
    rows = [("channels", *(name.replace("_", " ") for name in found[CHANNELS[0]]))]
    rows += [(str(count), *(f"{v:.2f}" for v in figures.values())) for count, figures in found.items()]
    report("discovery", rows, {"questions": QUESTIONS, **{str(count): figures for count, figures in found.items()}})


if __name__ == "__main__":
    main()
