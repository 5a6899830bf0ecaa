"""1 MiB slots from one process to another over TCP on the loopback: through two bridges, and through plain Zenoh.

Run it with ``python benchmarks/bridge.py [RESULT.json]``; it needs ``labhub[bench]``. Both ways are measured in every
round, in the same two processes and with the same settings, between the arrivals of an early slot and the last one.
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


def hub_of(stack: ExitStack, role: str) -> Hub:
    """Serve a broker of this process's own, and connect to it."""
    stack.enter_context(named_broker(role, "tcp://127.0.0.1:0")).start()
    return stack.enter_context(labhub.connect(role))


def obey(ways: dict[str, object]) -> None:
    """Do what is asked for, line by line, and say how long it took (in seconds)."""
    print("ready", flush=True)
    for line in sys.stdin:
        print(ways[line.strip()](), flush=True)  # type: ignore[operator]


def send(bridged: str, plain: str) -> None:
    """Be the machine that has the instrument."""
    payloads = [np.full(NBYTES, k, np.uint8).tobytes() for k in range(IN_FLIGHT)]
    with ExitStack() as stack:
        hub = hub_of(stack, "sender")
        bridge = stack.enter_context(labhub.bridge("*", listen=bridged, hub=hub, site="sender"))
        producer = stack.enter_context(
            hub.producer("frames", dtype="u1", shape=NBYTES, evict_after=None, timeout=PATIENCE)
        )
        session = stack.enter_context(zenoh.open(configuration((), (plain,), None)))
        publisher = session.declare_publisher(KEY, congestion_control=zenoh.CongestionControl.BLOCK)

        def through_bridges() -> float:
            began = time.monotonic()
            for k in range(SLOTS):
                with producer.slot() as slot:
                    slot.array[-1] = k % IN_FLIGHT
                while k % IN_FLIGHT == 0 and bridge.status.exports[0].backlog > IN_FLIGHT:
                    time.sleep(PAUSE)
            return time.monotonic() - began

        def through_zenoh() -> float:
            began = time.monotonic()
            for k in range(SLOTS):
                publisher.put(payloads[k % IN_FLIGHT])
            return time.monotonic() - began

        obey({"bridged": through_bridges, "plain": through_zenoh})


def receive(bridged: str, plain: str) -> None:
    """Be the machine with the notebook."""
    with ExitStack() as stack:
        hub = hub_of(stack, "receiver")
        stack.enter_context(labhub.bridge((), "*", connect=bridged, hub=hub, site="receiver"))
        hub.wait_for("frames", PATIENCE)
        consumer = stack.enter_context(hub.consumer("frames", "lossless"))
        session = stack.enter_context(zenoh.open(configuration((plain,), (), None)))
        subscriber = session.declare_subscriber(KEY, zenoh.handlers.FifoChannel(IN_FLIGHT))

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

        def through_zenoh() -> float:
            began = ended = 0.0
            for number in range(SLOTS):
                ended = checked(number, subscriber.recv().payload.to_bytes()[-1])
                began = ended if number == HEAD else began
            return ended - began

        obey({"bridged": through_bridges, "plain": through_zenoh})


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
        endpoints = [free_endpoint(), free_endpoint()]
        ends = [start(stack, role, endpoints) for role in ("send", "receive")]

        def rate(way: str) -> float:
            for orders, _ in reversed(ends):
                orders.write(way + "\n")
                orders.flush()
            seconds = [float(answers.readline()) for _, answers in ends]
            return (SLOTS - HEAD - 1) * NBYTES / seconds[1]

        rate("plain"), rate("bridged")  # warm up
        load = os.getloadavg()[0]
        found = interleaved({way: lambda way=way: rate(way) for way in ("plain", "bridged")}, ROUNDS)
    shares = interval([b / p for b, p in zip(found["bridged"], found["plain"], strict=True)])
    assert shares is not None
    rows = [("1 MiB slots", "median MB/s", "95 % interval")]
    for way, rates in found.items():
        i = interval([r / 1e6 for r in rates])
        rows.append((way, f"{i.median:.0f}", f"{i.low:.0f} to {i.high:.0f}"))
    rows.append(("bridged / plain", f"{shares.median:.2f}", f"{shares.low:.2f} to {shares.high:.2f}"))
    print(f"target: at least {TARGET} of plain Zenoh; load before: {load:.1f} on {machine()['cpus']} CPUs")
    report("bridge", rows, {"rates": found, "share": asdict(shares), "target": TARGET, "load_before": load})


if __name__ == "__main__":
    roles = {"--send": send, "--receive": receive}
    if len(sys.argv) > 1 and sys.argv[1] in roles:
        roles[sys.argv[1]](*sys.argv[2:])
    else:
        main()
