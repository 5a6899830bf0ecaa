"""A cable that delays and loses packets, without netem: a process that carries them between two TUN devices.

TUN, because each read of it is one packet as it goes over a wire. Between virtual cables (veth) the kernel hands on
super-frames without checksums, as long as nobody turns that off.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from typing import NamedTuple

from tests.faults.network_namespaces import Place, Python, can_be_made, plug_in

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

DEVICES = "tun0", "tun1"
QUEUE = 0.1
"""How long the queue in front of a slow cable is: a packet that would wait for longer is lost (in seconds)."""


def bad_ones_can_be_made() -> bool:
    """Whether this user may make namespaces, and TUN devices in them."""
    return can_be_made() and can_be_made("tuntap", "add", "mode", "tun", "name", DEVICES[0])


class Quality(NamedTuple):
    """What becomes of each packet, in either direction.

    Attributes
    ----------
    delay : float
        How long it is under way (in seconds).
    jitter : float
        By how much that differs, at random, so that one may overtake another (in seconds).
    loss : float
        The share of those that are lost, at random.
    rate : float
        Bytes per second.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    rate: float = 1e9


class Carrier:
    """Makes both devices, and carries packets from one to the other and back; runs in a process of its own."""

    def __init__(self) -> None:
        self.quality = Quality()
        self.carried = self.lost = 0
        self._random = random.Random(1)
        self._ends = [_tun(name) for name in DEVICES]
        self._free_at = [0.0, 0.0]
        self._under_way: list[tuple[float, int, int, bytes]] = []  # when it arrives, its number, where, and the packet
        threading.Thread(target=self._carry, daemon=True).start()

    def disturb(self, **how: float) -> None:
        """Be as bad as that from now on."""
        self.quality = Quality(**how)

    def _carry(self) -> None:
        while True:
            timeout = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
            for end in select.select(self._ends, [], [], timeout)[0]:
                self._take(self._ends.index(end), os.read(end, 1 << 16))
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                _, _, end, packet = heapq.heappop(self._under_way)
                with contextlib.suppress(OSError):  # that end is not up yet
                    os.write(end, packet)

    def _take(self, side: int, packet: bytes) -> None:
        quality, now = self.quality, time.monotonic()
        leaves = max(now, self._free_at[side]) + len(packet) / quality.rate
        if self._random.random() < quality.loss or leaves > now + QUEUE:
            self.lost += 1
            return
        self.carried += 1
        self._free_at[side] = leaves
        arrives = leaves + quality.delay + self._random.uniform(-quality.jitter, quality.jitter)
        heapq.heappush(self._under_way, (arrives, self.carried, self._ends[1 - side], packet))


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


class BadCable:
    """What joins two places, as good or bad as it is told to be."""

    def __init__(self, here: Place, there: Place) -> None:
        self._carrier = Python(here, "from tests.bridge.bad_cable import Carrier\ncarrier = Carrier()")
        here.ip("link", "set", "dev", DEVICES[1], "netns", str(there.pid))
        plug_in(here, there, *DEVICES)
        for place in (here, there):  # what loss costs should not differ by machine: BBR, for one, sends on regardless
            chosen = place.run("sh", "-c", "echo reno > /proc/sys/net/ipv4/tcp_congestion_control")
            assert chosen.returncode == 0, chosen.stderr

    def disturb(self, **how: float) -> None:
        """Delay and lose packets as in `Quality`; without a word, no more."""
        self._carrier(f"carrier.disturb(**{how!r})")

    @property
    def carried(self) -> int:
        """How many packets were not lost."""
        return int(self._carrier("carrier.carried"))

    @property
    def lost(self) -> int:
        """How many packets were."""
        return int(self._carrier("carrier.lost"))
