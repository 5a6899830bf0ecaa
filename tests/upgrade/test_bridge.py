"""A bridge of an earlier commit on the other machine: what it said is kept (`record_bridge.py`), and is said again."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zenoh

from labhub.bridging.network import configuration, open_session
from tests.bridge.conftest import bridge, endpoint, machine, stack

__all__ = ["bridge", "endpoint", "machine", "stack"]

PATIENCE = 30
KEPT = sorted(Path(__file__).parent.glob("bridge_*.json"))
CONVERSATIONS = {path.stem.removeprefix("bridge_"): json.loads(path.read_text()) for path in KEPT}
CASES = [(commit, channel) for commit, told in CONVERSATIONS.items() for channel in told["exported"]]


# ------------------------------------------------------------------------------------------------ it exports, we import


class Exporter:
    """Says what a bridge has said.

    Parameters
    ----------
    session : zenoh.Session
    told : dict
        Its words about one channel.
    """

    def __init__(self, session: zenoh.Session, told: dict[str, Any]) -> None:
        self._session, self._told = session, told
        self.base = told["token"].split("/alive/")[0]
        self.offer = told["offer"].encode()
        key, clock = told["clock"]
        self._kept = [
            session.declare_queryable(f"{self.base}/offer", lambda q: q.reply(f"{self.base}/offer", self.offer)),
            session.declare_queryable(key, lambda q: q.reply(key, bytes.fromhex(clock))),
            session.liveliness().declare_token(told["token"]),
        ]

    def send(self) -> None:
        for attachment, payload in self._told["messages"]:
            last = not payload
            control = zenoh.CongestionControl.BLOCK if last else zenoh.CongestionControl.DROP
            data = bytes.fromhex(payload)
            self._session.put(
                f"{self.base}/data", data, attachment=bytes.fromhex(attachment), congestion_control=control
            )


@pytest.fixture
def importing(stack, machine, bridge, endpoint):
    there = machine("there")
    back = bridge(there, "office", imports="*", listen=endpoint)
    return there, back, stack.enter_context(open_session(configuration([endpoint], [], None)))


def state(bridge) -> str:
    return next((i.state for i in bridge.status.imports), "")


@pytest.mark.parametrize(("commit", "channel"), CASES)
def test_its_channels_arrive_here(importing, wait_until, commit, channel) -> None:
    there, back, session = importing
    told = CONVERSATIONS[commit]["exported"][channel]
    exporter = Exporter(session, told)
    wait_until(lambda: state(back) == "receiving", PATIENCE)
    offer = json.loads(told["offer"])
    info = there.find(channel)
    assert (info.capacity, info.schema.to_json()) == (offer["capacity"], offer["schema"])
    with there.consumer(channel, start="oldest") as c:
        exporter.send()
        got: list[str] = []
        seqs: list[int] = []
        while len(got) < len(told["values"]):
            batch = c.next_batch(16, 1, PATIENCE, False)
            assert batch is not None
            seqs += batch.seq.tolist()
            got += [np.array(slot).tobytes().hex() for slot in batch.data]
        assert seqs == list(range(len(got)))
        assert got == told["values"]
        assert c.lost == 0
    wait_until(lambda: state(back) == "ended", PATIENCE)
    (imported,) = back.status.imports
    assert (imported.received, imported.lost) == (len(got), 0)


@pytest.mark.parametrize("commit", CONVERSATIONS)
def test_a_later_version_of_the_protocol_would_be_refused_with_what_to_do(importing, wait_until, commit) -> None:
    _, back, session = importing
    exporter = Exporter(session, CONVERSATIONS[commit]["exported"]["numbers"])
    exporter.offer = exporter.offer.replace(b'"version":1', b'"version":2')
    wait_until(lambda: state(back) == "refused", PATIENCE)
    assert "update the labhub here" in back.status.imports[0].detail
    exporter.offer = exporter.offer.replace(b'"version":2', b'"version":0')
    wait_until(lambda: "update the labhub of the other machine" in back.status.imports[0].detail, PATIENCE)


# ------------------------------------------------------------------------------------------------ we export, it imports

HEAD = struct.Struct("<HHIIQ8s16sQQ")
OFFER = {
    "version": int,
    "run": str,
    "instance": str,
    "schema": str,
    "capacity": int,
    "lossless": bool,
    "checksum_policy": str,
    "epoch": int,
    "resume": int,
    "generation": int,
    "path": list,
    "host": str,
    "boot_id": str,
}
"""What it takes for an offer: version 1 with all of these; it ignores others."""


def read_offer(data: bytes) -> dict[str, Any]:
    """Read an offer as 0323d94 does."""
    offer = json.loads(data)
    assert offer["version"] == 1
    assert {name: type(offer[name]) for name in OFFER} == OFFER
    assert len(bytes.fromhex(offer["instance"])) == 16
    assert offer["checksum_policy"] in ("None", "Manual", "Enforced")
    return offer


def read_message(attachment: bytes, payload: bytes, slot_nbytes: int) -> dict[str, Any]:
    """Read a message as 0323d94 does."""
    version, flags, n, _, generation, run, instance, follows, first = HEAD.unpack_from(attachment)
    assert version == 1
    at = HEAD.size

    def column(dtype: str) -> Any:
        nonlocal at
        values = np.frombuffer(attachment, dtype, n, at)
        at += values.nbytes
        return values

    found = {"times": column("<i8"), "nbytes": column("<u8") if flags & 1 else np.full(n, slot_nbytes)}
    if flags & 2:
        found |= {"flags": column("<u4"), "checksums": column("V32")}
    assert at == len(attachment)
    assert len(payload) == n * slot_nbytes
    slots = [payload[k * slot_nbytes : (k + 1) * slot_nbytes].hex() for k in range(n)]
    head = {"generation": generation, "run": run.hex(), "instance": instance.hex(), "follows": follows, "first": first}
    return head | found | {"slots": slots, "end": bool(flags & 4)}


def ask(session: zenoh.Session, key: str, parameters: str) -> bytes:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for reply in session.get(f"{key}?{parameters}", timeout=5.0):
            if reply.ok is not None:
                return bytes(reply.ok.payload)
    raise AssertionError(f"no answer to {key}")


@pytest.mark.parametrize("commit", CONVERSATIONS)
@pytest.mark.parametrize("checksum", ["none", "enforced"])
def test_it_imports_what_is_exported_here(stack, machine, bridge, endpoint, wait_until, commit, checksum) -> None:
    asks = CONVERSATIONS[commit]["imported"]
    here = machine("here")
    out = bridge(here, "lab", exports="*", listen=endpoint)
    session = stack.enter_context(open_session(configuration([endpoint], [], None)))
    tokens: list[str] = []
    messages: list[zenoh.Sample] = []
    keep = session.liveliness().declare_subscriber(
        "labhub/*/*/*/alive/*", lambda sample: tokens.append(str(sample.key_expr)), history=True
    )
    with here.producer("x", dtype="i8", capacity=64, checksum=checksum) as p:
        wait_until(lambda: tokens, PATIENCE)
        root, site, hub, channel, alive, run = tokens[0].split("/")
        assert (root, site, channel, alive) == ("labhub", "lab", "x", "alive")
        base = f"labhub/lab/{hub}/x"
        data = session.declare_subscriber(f"{base}/data", messages.append)
        token = session.liveliness().declare_token(f"{base}/imported/{asks['tokens'][0].rpartition('/')[2]}")
        made = out._exports._exports  # an export is there a moment after its token
        wait_until(lambda: "x" in made and made["x"]._matched(), PATIENCE)
        offer = read_offer(ask(session, f"{base}/offer", asks["questions"][0]))
        assert (offer["run"], offer["capacity"], offer["resume"], offer["lossless"]) == (run, 64, 0, True)
        p.write_many(range(5))

        def received() -> list[dict[str, Any]]:
            return [read_message(bytes(m.attachment or b""), bytes(m.payload), 8) for m in list(messages)]

        def slots() -> list[str]:
            return [slot for m in received() for slot in m["slots"]]

        values = [k.to_bytes(8, "little").hex() for k in range(5)]
        wait_until(lambda: slots() == values, PATIENCE)
        assert {(m["run"], m["instance"], m["generation"]) for m in received()} == {
            (offer["run"], offer["instance"], offer["generation"])
        }
        where = asks["questions"][1].replace(CONVERSATIONS[commit]["exported"]["numbers"]["token"].split("/")[-1], run)
        old = json.loads(CONVERSATIONS[commit]["exported"]["numbers"]["offer"])["instance"]
        messages.clear()
        again = read_offer(ask(session, f"{base}/offer", where.replace(old, offer["instance"])))
        assert (again["resume"], again["generation"]) == (4, offer["generation"] + 1)
        wait_until(lambda: values[4] in slots(), PATIENCE)
        p.close()
        wait_until(lambda: received()[-1]["end"], PATIENCE)
        assert received()[-1]["first"] == 5
    for one in (keep, data, token):
        one.undeclare()
