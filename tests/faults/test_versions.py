"""Fault 35: labhubs of several versions on one segment, or with one broker."""

from __future__ import annotations

import json
import struct

import pytest

from labhub import __version__, _native, doctor, runtime
from labhub.errors import VersionMismatch
from labhub.hub import connect, named_broker
from labhub.transport.curve import CLIENT_KEY, load_key
from labhub.transport.dealer import Dealer
from tests.conftest import wait_until
from tests.faults.rounds import Fault
from tests.faults.segments import (
    FIELDS,
    WAYS,
    elsewhere,
    leave_dead_segment,
    place,
    probe,
    producer,
    put,
    read_all,
    take_over,
)


@pytest.mark.fault(35)
def test_35_segment_of_another_version(fault: Fault) -> None:
    dead = leave_dead_segment()
    ours = _native.ABI_VERSION
    for theirs in fault.each((0, ours + 1, 2**32 - 1)):
        struct.pack_into("<I", dead, FIELDS["abi"], theirs)
        put(dead)
        fault.happened()
        for attach in WAYS:
            with pytest.raises(VersionMismatch, match=f"layout version {theirs}, this labhub speaks {ours}") as caught:
                attach()
            assert (caught.value.ours, caught.value.theirs) == (ours, theirs)
        assert place("x").read_bytes() == dead
    place("x").unlink()


@pytest.mark.fault(35)
def test_35_live_segment_of_another_version(fault: Fault) -> None:
    with fault.round(), elsewhere(producer()) as owner:
        with place("x").open("r+b") as file:
            file.seek(FIELDS["abi"])
            file.write(struct.pack("<I", 2))
        fault.happened()
        for attach in (read_all, take_over, probe):
            with pytest.raises(VersionMismatch, match="version 2, this labhub speaks 1"):
                attach()
        assert owner.ask(1) == "6"  # it goes on
    assert not place("x").exists()


FUTURE = (
    b"REG_REQ",
    b"""{"channel_name": "x", "shm_name": "x", "schema_hash": "%s", "schema_version": 7,
    "producer_pid": 1, "metadata": {"of": {"the": "future"}}, "not_known_yet": [1, 2]}"""
    % (b"0" * 64),
)


def ask(dealer: Dealer, *frames: bytes) -> list[bytes]:
    assert dealer.send(list(frames))
    reply: list[list[bytes]] = []
    wait_until(lambda: reply.append(r) or True if (r := dealer.receive()) else False, 30, "the reply")
    return reply[0]


@pytest.mark.fault(35)
def test_35_broker_and_clients_of_other_versions(fault: Fault) -> None:
    """The wire format has no version (decision 9): what is unknown is passed over or refused; the doctor names both."""
    with fault.round(), named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        with Dealer(service.endpoint, service.public_key, load_key(CLIENT_KEY)) as newer, connect() as hub:
            assert newer.handshake(30)
            assert ask(newer, *FUTURE)[0] == b"REG_ACK"
            kind, body = ask(newer, b"TELEPORT_REQ", b"{}")
            assert kind == b"ERROR"
            assert b"INVALID_REQUEST" in body
            assert b"TELEPORT_REQ" in body
            fault.happened()
            assert hub.find("x").producer_pid == 1
            path = runtime.path_of("default")
            known = json.loads(path.read_text())
            path.write_text(json.dumps(known | {"version": "9.9", "more": True}))
            (found,) = [f for f in doctor.examine() if f.severity == "problem"]
            assert found.what == f"runs labhub 9.9, this is {__version__}"
            path.write_text(json.dumps(known))
