"""Another program that speaks the protocol of bridges, and does not always mean well."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import zenoh

from labhub.bridging.network import configuration, open_session
from labhub.bridging.wire import VERSION, Address, Message
from labhub.datablock.batch import SLOT_HEADER
from labhub.datablock.config import ChecksumPolicy
from labhub.schema import Schema

HUB = "0123456789ab"
RUN = "00" * 8


def offer(**changes: object) -> bytes:
    """What an exporting bridge says of a channel of one number a slot."""
    good = {
        "version": VERSION,
        "run": RUN,
        "instance": "11" * 16,
        "schema": Schema.infer(dtype="i8").to_json(),
        "capacity": 64,
        "lossless": True,
        "checksum_policy": ChecksumPolicy.NONE.wire,
        "epoch": 1,
        "resume": 0,
        "generation": 0,
        "path": [HUB],
        "host": "elsewhere",
        "boot_id": "",
    }
    return json.dumps(good | changes).encode()


class Exporter:
    """Another program that speaks the bridge's protocol, and does not always mean well."""

    def __init__(self, endpoint: str) -> None:
        self.session = open_session(configuration([endpoint], [], None))
        self.offers: dict[str, bytes] = {}
        self.mute = False
        self._kept: list[object] = []
        self._tokens: dict[str, zenoh.LivelinessToken] = {}

    def export(self, channel: str, data: bytes) -> None:
        address = Address("evil", HUB, channel)
        self.offers[channel] = data

        def answer(question: zenoh.Query) -> None:
            if not self.mute:
                question.reply(address.offer, self.offers[channel])

        self._kept.append(self.session.declare_queryable(address.offer, answer))
        self._tokens[channel] = self.session.liveliness().declare_token(address.token(RUN))

    def send(self, channel: str, first: int, n: int, attachment: bytes | None = None) -> None:
        headers = np.zeros(n, SLOT_HEADER)
        headers["seq"], headers["nbytes"], headers["epoch"] = np.arange(first, first + n), 8, 1
        headers["timestamp_ns"] = time.time_ns()
        payload = np.arange(first, first + n, dtype="i8").tobytes()
        message = Message(b"\x11" * 16, first, 1, headers, payload, 8)
        known = message.attachment(RUN, 0, first) if attachment is None else attachment
        self.session.put(Address("evil", HUB, channel).data, payload, attachment=known)

    def end(self, channel: str, seq: int) -> None:
        """Say that there is nothing from that slot on, and withdraw the channel."""
        address = Address("evil", HUB, channel)
        last = Message.the_end(b"\x11" * 16, seq, 1).attachment(RUN, 0, seq)
        self.session.put(address.data, b"", attachment=last, congestion_control=zenoh.CongestionControl.BLOCK)
        self.withdraw(channel)

    def withdraw(self, channel: str) -> None:
        """Take back its token."""
        self._tokens.pop(channel).undeclare()


@pytest.fixture
def importing(stack, machine, bridge, endpoint):
    """The hub and the bridge of a machine that imports everything, and the one that exports to it."""
    there = machine("there")
    back = bridge(there, "office", imports="*/*", listen=endpoint)
    other = Exporter(endpoint)
    stack.callback(other.session.close)
    return there, back, other


def state(bridge, channel: str) -> str:
    return next((i.state for i in bridge.status.imports if i.channel == channel), "")


class Steady:
    """A channel of an honest machine that is written all the time, and what arrives of it."""

    def __init__(self, here, there, back) -> None:
        self._stop, self.n = threading.Event(), 0
        self._there, self._back = there, back
        self._producer = here.producer("steady", dtype="i8", capacity=4096)
        there.wait_for("steady", 30)
        self._reader = there.consumer("steady", "lossless", start="oldest")
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def _write(self) -> None:
        while not self._stop.wait(0.002):
            self._producer.write(self.n)
            self.n += 1

    def check(self) -> None:
        """All that was written arrives."""
        self._stop.set()
        self._writer.join(30)
        assert self.n > 0
        got = []
        while len(got) < self.n:
            got += self._reader.next_batch(4096, 1, 30, False).data.tolist()
        assert got == list(range(self.n))
        assert self._reader.lost == 0
        (imported,) = (i for i in self._back.status.imports if i.channel == "steady")
        assert (imported.state, imported.lost) == ("receiving", 0)

    def close(self) -> None:
        self._stop.set()
        self._writer.join(30)
        self._reader.close()
        self._producer.close()


@pytest.fixture
def steady(stack, machine, bridge, endpoint, importing):
    """A channel beside those of a stranger, over the same bridge."""
    there, back, _ = importing
    here = machine("here")
    bridge(here, "lab", exports="*", connect=endpoint)
    made = Steady(here, there, back)
    stack.callback(made.close)
    return made
