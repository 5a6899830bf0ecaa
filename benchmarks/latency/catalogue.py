"""The rows of the table that are about one slot's time, and everybody who takes part."""

from __future__ import annotations

from bench.contender import Contender
from bench.workload import Workload

from latency import iceoryx, peers
from latency.limits import InCpp
from latency.ring import Labhub, LabhubPolling


def workloads() -> list[Workload]:
    """Return the rows, in the order of the table."""
    return [
        Workload("ping-pong, 64 B", "pingpong", 64, amount=3000, figure="p50_us", unit="us"),
        Workload("wake-up at 1 kHz", "wakeup", 64, amount=500, figure="p50_us", unit="us"),
        Workload("CPU of a reader at 1 kHz", "wakeup", 64, amount=1000, figure="cpu_percent", unit="%", peers=False),
        Workload("wake-up after 10 s, before = 1", "wakeup", 64, amount=500, figure="times", unit="", idle=10.0),
    ]


def contenders() -> list[Contender]:
    """Return everybody, in the order of the table."""
    return [
        Labhub(),
        LabhubPolling(),
        InCpp("C futex", ring=False, sleeps=True),
        InCpp("C cache line", ring=False, sleeps=False),
        InCpp("C++ on the same ring, sleeping", ring=True, sleeps=True),
        InCpp("C++ on the same ring, polling", ring=True, sleeps=False),
        iceoryx.Event(),
        iceoryx.Polling(),
        peers.Polling(),
        peers.ZeroMQ(),
        peers.Pipe(),
    ]
