"""How long the broker takes to find a channel, with one channel registered and with 10,000.

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


def main() -> None:
    """Measure and report."""
    names = [f"channel.{k:05}" for k in range(10_000)]
    result: dict[str, object] = {"questions": QUESTIONS}
    rows = [("channels", "median ms", "p99 ms", "max ms")]
    with private_directories():
        config = BrokerConfig(endpoint="tcp://127.0.0.1:0", max_channels_per_key=len(names))
        with BrokerService(config) as broker, Messenger() as messenger:
            assert messenger.connect(broker.endpoint, broker.public_key)
            for known in (names[:1], names):
                taken_s = register(messenger, known)
                found = ask(messenger, known)
                result[str(len(known))] = found | {"registration_s": taken_s}
                rows.append((str(len(known)), *(f"{v:.2f}" for v in found.values())))
    report("discovery", rows, result)


if __name__ == "__main__":
    main()
