"""1 MiB slots from one process to another over TCP on the loopback: through two bridges, and through plain Zenoh.

Run it with ``python benchmarks/bridge.py [RESULT.json]``; it needs ``labhub[bench]``. Every way is measured in every
round, in the same two processes, between the arrivals of an early slot and the last one. Plain Zenoh is measured as it
comes, and once more with the longer queue that a bridge asks for, which few would know to ask for.
Plain Zenoh puts bytes that are there already, and takes bytes out. The bridged way is the whole of it: the instrument
writes into its slot in place, and the reader at the other end reads in place, in order, losing nothing. No bridge makes
a producer wait, so this one looks at the backlog, and lets it be as long as what plain Zenoh has in flight.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import IO

import numpy as np
import zenoh
from bench.statistics import interval
from common import interleaved, machine, private_directories, report

import labhub
from labhub.bridging.network import configuration
from labhub.hub import Hub, named_broker

NBYTES = 1 << 20
SLOTS = 300
"""Slots of one round; the first `HEAD` of them are not measured."""
HEAD = 50
ROUNDS = 24
PATIENCE = 60.0
IN_FLIGHT = 8
PAUSE = 0.002
"""How often the backlog is looked at (in seconds)."""
TARGET = 0.8
KEY = "plain/slots"
PLAIN, TUNED, BRIDGED = "plain", "plain, long queue", "bridged"
QUEUE = "transport/link/tx/queue/size/data"


def hub_of(stack: ExitStack, role: str) -> Hub:
    """Serve a broker of this process's own, and connect to it."""
    stack.enter_context(named_broker(role, "tcp://127.0.0.1:0")).start()
    return stack.enter_context(labhub.connect(role))


def opened(stack: ExitStack, endpoints: tuple[str, ...], *, listening: bool) -> dict[str, zenoh.Session]:
    """Open plain Zenoh in both ways, each at an endpoint of its own."""
    sessions = {}
    for way, endpoint in zip((PLAIN, TUNED), endpoints, strict=True):
        config = configuration((), (endpoint,), None) if listening else configuration((endpoint,), (), None)
        if way == PLAIN:
            config.insert_json5(QUEUE, zenoh.Config().get_json(QUEUE))
        sessions[way] = stack.enter_context(zenoh.open(config))
    return sessions


def obey(ways: dict[str, object]) -> None:
    """Do what is asked for, line by line, and say how long it took (in seconds)."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(ways[line.strip()](), flush=True)  # type: ignore[operator]


def send(bridged: str, *plain: str) -> None:
    """Be the machine that has the instrument."""
    payloads = [np.full(NBYTES, k, np.uint8).tobytes() for k in range(IN_FLIGHT)]
    with ExitStack() as stack:
        hub = hub_of(stack, "sender")
        bridge = stack.enter_context(labhub.bridge("*", listen=bridged, hub=hub, site="sender"))
        producer = stack.enter_context(
            hub.producer("frames", dtype="u1", shape=NBYTES, evict_after=None, timeout=PATIENCE)
        )
        sessions = opened(stack, plain, listening=True)
        block = zenoh.CongestionControl.BLOCK
        publishers = {w: s.declare_publisher(KEY, congestion_control=block) for w, s in sessions.items()}

        def through_bridges() -> float:
            began = time.monotonic()
            for k in range(SLOTS):
                with producer.slot() as slot:
                    slot.array[-1] = k % IN_FLIGHT
                while k % IN_FLIGHT == 0 and bridge.status.exports[0].backlog > IN_FLIGHT:
                    time.sleep(PAUSE)
            return time.monotonic() - began

        def through_zenoh(way: str) -> float:
            publisher, began = publishers[way], time.monotonic()
            while not publisher.matching_status.matching:  # what is put before the reader is known is put to nobody
                assert time.monotonic() < began + PATIENCE, "nobody has subscribed"
                time.sleep(PAUSE)
            for k in range(SLOTS):
                publisher.put(payloads[k % IN_FLIGHT])
            return time.monotonic() - began

        obey({BRIDGED: through_bridges} | {way: partial(through_zenoh, way) for way in publishers})


def receive(bridged: str, *plain: str) -> None:
    """Be the machine with the notebook."""
    with ExitStack() as stack:
        hub = hub_of(stack, "receiver")
        stack.enter_context(labhub.bridge((), "*", connect=bridged, hub=hub, site="receiver"))
        hub.wait_for("frames", PATIENCE)
        consumer = stack.enter_context(hub.consumer("frames", "lossless"))
        sessions = opened(stack, plain, listening=False)
        fifo = zenoh.handlers.FifoChannel(IN_FLIGHT)
        subscribers = {w: s.declare_subscriber(KEY, fifo) for w, s in sessions.items()}

        def checked(number: int, value: int) -> float:
            assert value == number % SLOTS % IN_FLIGHT, f"slot {number} holds {value}"
            return time.monotonic()

        def through_bridges() -> float:
            began = ended = 0.0
            for number in range(SLOTS):
                with consumer.slot(PATIENCE) as slot:
                    ended = checked(number, int(slot.array[-1]))
                began = ended if number == HEAD else began
            assert not consumer.lost
            return ended - began

        def through_zenoh(way: str) -> float:
            began = ended = 0.0
            for number in range(SLOTS):
                ended = checked(number, subscribers[way].recv().payload.to_bytes()[-1])
                began = ended if number == HEAD else began
            return ended - began

        obey({BRIDGED: through_bridges} | {way: partial(through_zenoh, way) for way in subscribers})


def start(stack: ExitStack, role: str, endpoints: list[str]) -> tuple[IO[str], IO[str]]:
    """Start one of the two processes."""
    command = [sys.executable, __file__, f"--{role}", *endpoints]
    process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    stack.callback(process.stdin.close)  # type: ignore[union-attr]
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", f"the {role} did not start"
    return process.stdin, process.stdout


def free_endpoint() -> str:
    """Return an endpoint on the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


def main() -> None:
    """Measure and report."""
    with private_directories(), ExitStack() as stack:
        endpoints = [free_endpoint() for _ in range(3)]
        ends = [start(stack, role, endpoints) for role in ("send", "receive")]

        def rate(way: str) -> float:
            for orders, _ in reversed(ends):
                orders.write(way + "\n")
                orders.flush()
            seconds = [float(answers.readline()) for _, answers in ends]
            return (SLOTS - HEAD - 1) * NBYTES / seconds[1]

        ways = (PLAIN, BRIDGED, TUNED)
        for way in ways:  # warm up
            rate(way)
        load = os.getloadavg()[0]
        found = interleaved({way: lambda way=way: rate(way) for way in ways}, ROUNDS)
    rows = [("1 MiB slots", "median", "95 % interval")]
    for way, rates in found.items():
        i = interval([r / 1e6 for r in rates])
        assert i is not None
        rows.append((f"{way} (MB/s)", f"{i.median:.0f}", f"{i.low:.0f} to {i.high:.0f}"))
    shares = {}
    for way in (PLAIN, TUNED):
        i = interval([b / p for b, p in zip(found[BRIDGED], found[way], strict=True)])
        assert i is not None
        shares[way] = asdict(i)
        rows.append((f"{BRIDGED} / {way}", f"{i.median:.2f}", f"{i.low:.2f} to {i.high:.2f}"))
    print(f"target: at least {TARGET} of plain Zenoh; load before: {load:.1f} on {machine()['cpus']} CPUs")
    report("bridge", rows, {"rates": found, "shares": shares, "target": TARGET, "load_before": load})


if __name__ == "__main__":
    roles = {"--send": send, "--receive": receive}
    if len(sys.argv) > 1 and sys.argv[1] in roles:
        roles[sys.argv[1]](*sys.argv[2:])
    else:
        main()
