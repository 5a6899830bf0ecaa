"""Bridges whose other side is stopped, killed, restarted, slow, or somebody else."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
import zenoh

import labhub
from labhub.bridging import clocks, imports
from labhub.bridging.clocks import Clocks, Offset
from labhub.bridging.network import configuration, open_session
from labhub.bridging.wire import Address
from labhub.errors import BridgeError
from tests.bridge.conftest import free_endpoint
from tests.bridge.machines import Loopback, Machine, assert_unhindered
from tests.bridge.relay import Relay

PATIENCE = 60


@pytest.fixture
def machines(stack, private_dirs, endpoint):
    """A machine with channels, and one that wants them; their bridges are not made yet."""
    lab, office = (Machine(Loopback(stack), private_dirs, name) for name in ("lab", "office"))
    return lab, office


def test_the_importing_bridge_is_killed(stack, private_dirs, endpoint, machines, wait_until) -> None:
    lab, office = machines
    lab.join(exports="*", listen=endpoint, site="lab")
    office.join(imports="*", connect=endpoint, site="office")
    lab("produce('x', 100)")
    assert office("read('x', 100)") == [0, 100, 0, 100]
    office.signal(signal.SIGKILL)
    wait_until(lambda: lab.state("exports") == "no reader", PATIENCE)
    assert_unhindered(lab("produce('x', 1000)"))
    again = Machine(Loopback(stack), private_dirs, "again")
    again.join(imports="*", connect=endpoint, site="office")
    first, n, lost, cursor = again("read('x', 1100)")
    assert (n + lost, cursor) == (1100 - first, 1100)
    assert again("end()")
    assert lab("end()")


def test_the_exporting_bridge_is_restarted(endpoint, machines, wait_until) -> None:
    lab, office = machines
    lab.join(exports="*", listen=endpoint, site="lab")
    office.join(imports="*", connect=endpoint, site="office")
    lab("produce('x', 100, capacity=4096)")
    assert office("read('x', 100)") == [0, 100, 0, 100]
    assert lab("leave()")
    wait_until(lambda: office.state("imports") == "cut", PATIENCE)
    lab("produce('x', 500)")
    lab.join(exports="*", listen=endpoint, site="lab")
    assert office("read('x', 600)") == [100, 500, 0, 600], "the ring still had all of it"
    assert office("end()")
    assert lab("end()")


def test_a_machine_dies_and_another_one_is_what_it_was(stack, private_dirs, endpoint, machines, wait_until) -> None:
    lab, office = machines
    lab.join(exports="*", listen=endpoint, site="lab")
    office.join(imports="*", connect=endpoint, site="office")
    lab("produce('x', 100)")
    assert office("read('x', 100)") == [0, 100, 0, 100]
    lab.signal(signal.SIGKILL)
    wait_until(lambda: office.state("imports") == "cut", PATIENCE)
    second = Machine(Loopback(stack), private_dirs, "second")
    second.join(exports="*", listen=endpoint, site="lab")
    second("produce('x', 50)")
    wait_until(lambda: any(i["state"] == "receiving" for i in office("status()")["imports"]), PATIENCE)
    assert office("end()")
    assert second("end()")


def test_a_network_that_cannot_keep_up_costs_slots_and_not_the_producer(endpoint, machines, wait_until) -> None:
    lab, office = machines
    lab.join(exports="*", listen=endpoint, site="lab", buffer_nbytes=4 << 20)
    office.join(imports="*", connect=endpoint, site="office")
    lab("produce('x', 100)")
    assert office("read('x', 100)") == [0, 100, 0, 100]
    office.signal(signal.SIGSTOP)
    try:
        written, state = 0, ""
        while state != "network cannot keep up" and written < 400_000:
            assert_unhindered(lab("produce('x', 5000)"))
            written += 5000
            state = lab.state("exports")
        assert state == "network cannot keep up"
        export = lab("status()")["exports"][0]
        assert export["lost"] > 0
        assert export["backlog_nbytes"] <= 4 << 20
    finally:
        office.signal(signal.SIGCONT)
    total = 100 + written
    assert lab("produce('x', 1)")
    first, n, lost, cursor = office(f"read('x', {total + 1})")
    assert (first, n + lost, cursor) == (100, written + 1, total + 1)
    assert lost > 0

    def is_booked() -> bool:  # a moment after it can be read
        imported = office("status()")["imports"][0]
        return imported["received"] + imported["lost"] == total + 1

    wait_until(is_booked, PATIENCE)
    assert office("end()")
    assert lab("end()")


# ------------------------------------------------------------------------------------------------------------------ TLS


def certificates(directory: Path) -> None:
    """Make an authority, and certificates of its and of a stranger's for this machine."""
    if shutil.which("openssl") is None:
        pytest.skip("certificates are made by openssl, which is not here")

    def openssl(words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=directory, check=True, capture_output=True, timeout=60)

    (directory / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("authority", "stranger"):
        openssl(f"req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}")
    for name, signer in (("here", "authority"), ("there", "authority"), ("false", "stranger")):
        openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        signed = f"-CA {signer}.pem -CAkey {signer}.key -CAcreateserial -extfile san"
        openssl(f"x509 -req -in {name}.csr {signed} -out {name}.pem -days 2")


def tls(directory: Path, name: str, *, acl: bool = False) -> Path:
    """Write Zenoh's configuration for a machine; with `acl`, one that lets nobody take `secret.*`."""
    side = {"certificate": str(directory / f"{name}.pem"), "private_key": str(directory / f"{name}.key")}
    config = {
        "scouting": {"multicast": {"enabled": False}},
        "listen": {"endpoints": []},
        "transport": {
            "shared_memory": {"enabled": False},
            "link": {
                "tls": {
                    "root_ca_certificate": str(directory / "authority.pem"),
                    "enable_mtls": True,
                    **{f"{way}_{key}": value for way in ("listen", "connect") for key, value in side.items()},
                }
            },
        },
    }
    if acl:
        rule = {
            "id": "keep",
            "permission": "deny",
            "flows": ["egress", "ingress"],
            "messages": ["put", "reply", "liveliness_token", "liveliness_query", "query"],
            "key_exprs": ["labhub/*/*/secret/**"],
        }
        config["access_control"] = {
            "enabled": True,
            "default_permission": "allow",
            "rules": [rule],
            "subjects": [{"id": "everybody"}],
            "policies": [{"rules": ["keep"], "subjects": ["everybody"]}],
        }
    path = directory / f"{name}.json5"
    path.write_text(json.dumps(config))
    return path


def test_tls_with_the_right_certificates_and_access_control(machine, bridge, tmp_path, wait_until) -> None:
    certificates(tmp_path)
    endpoint = free_endpoint("tls")
    here, there = machine("here"), machine("there")
    bridge(here, "lab", exports="*", listen=endpoint, config=tls(tmp_path, "here", acl=True))
    back = bridge(there, "office", imports="*", connect=endpoint, config=tls(tmp_path, "there"))
    back.wait_connected(PATIENCE)
    with here.producer("secret", dtype="i8") as secret, here.producer("x", dtype="i8") as p:
        secret.write(1)
        p.write_many(range(10))
        there.wait_for("x", PATIENCE)
        with there.consumer("x", start="oldest") as c:
            assert next(c.batches(min_slots=10, timeout=PATIENCE)).data.tolist() == list(range(10))
        assert [c.name for c in there.channels()] == ["x"]


@pytest.mark.parametrize(("name", "words"), [("false", "certificate|TLS|tls"), ("plain", "certificate")])
def test_tls_with_wrong_certificates(machine, bridge, tmp_path, name, words) -> None:
    certificates(tmp_path)
    endpoint = free_endpoint("tls")
    bridge(machine("here"), "lab", exports="*", listen=endpoint, config=tls(tmp_path, "here"))
    wrong = {"config": tls(tmp_path, "false")} if name == "false" else {}
    back = bridge(machine("there"), "office", imports="*", connect=endpoint, **wrong)
    with pytest.raises(BridgeError, match=words):
        back.wait_connected(4.0)
    assert back.status.state == "not connected"


def test_a_certificate_that_is_not_there(machine, tmp_path) -> None:
    with pytest.raises(BridgeError, match="network cannot be opened"):
        labhub.bridge(hub=machine("here"), site="lab", listen=free_endpoint("tls"), config=tls(tmp_path, "here"))


# ---------------------------------------------------------------------------------------------------------------- lines


def test_a_long_line(stack, machine, bridge, endpoint) -> None:
    here, there = machine("here"), machine("there")
    bridge(here, "lab", exports="*", listen=endpoint)
    line = Relay(stack, endpoint, there_s=0.03, back_s=0.01)
    bridge(there, "office", imports="*", connect=line.endpoint)
    with here.producer("x", dtype="i8") as p:
        origin = there.wait_for("x", PATIENCE).origin
        assert origin["clock_round_trip_ns"] > 40e6
        assert 5e6 < abs(origin["clock_offset_ns"]) <= origin["clock_round_trip_ns"] / 2  # it is one clock, in truth
        p.write_many(range(5000))
        with there.consumer("x", "lossless", start="oldest") as c:
            got = []
            while c.cursor < 5000:
                got += c.next_batch(5000, 1, PATIENCE, False).data.tolist()
        assert got == list(range(5000))


def test_one_answer_of_a_clock_may_be_lost(stack, endpoint) -> None:
    there = stack.enter_context(open_session(configuration((), (endpoint,), None)))
    here = stack.enter_context(open_session(configuration((endpoint,), (), None)))
    address, asked = Address("lab", "0" * 16, "x"), []

    def answer(question: zenoh.Query) -> None:
        asked.append(time.time_ns())
        lost = len(asked) == 3
        question.reply(address.clock, b"" if lost else struct.pack("<qq", asked[-1], asked[-1]))

    queryable = there.declare_queryable(address.clock, answer)
    querier = here.declare_querier(address.clock)
    deadline = time.monotonic() + PATIENCE
    while not querier.matching_status.matching:
        assert time.monotonic() < deadline
    found = Clocks(here).offset(address)
    assert abs(found.offset_ns) <= found.round_trip_ns / 2  # it is one clock
    assert len(asked) == 9
    queryable.undeclare()


def test_a_mute_clock_is_not_waited_for_for_long(stack, endpoint) -> None:
    session = stack.enter_context(open_session(configuration((), (endpoint,), None)))
    assert Clocks(session).offset(Address("lab", "0" * 16, "x")) is None


def test_a_clock_that_was_mute_and_one_that_drifts_are_told_to_the_broker(
    machine, bridge, endpoint, wait_until, monkeypatch
) -> None:
    here, there = machine("here"), machine("there")
    monkeypatch.setattr(imports, "CLOCK_INTERVAL", 0.1)
    monkeypatch.setattr(imports, "MUTE_INTERVAL", 0.1)
    monkeypatch.setattr(clocks, "KEEP", 0.0)
    says: list[Offset | None] = [None]
    monkeypatch.setattr(Clocks, "_measure", lambda self, key: says[-1])
    bridge(here, "lab", exports="*", listen=endpoint)
    back = bridge(there, "office", imports="*", connect=endpoint)

    def known() -> tuple[object, object]:
        origin = there.find("x").origin
        return origin["clock_offset_ns"], origin["clock_round_trip_ns"]

    with here.producer("x", dtype="i8") as p:
        there.wait_for("x", PATIENCE)
        assert known() == (None, None)
        with there.watch("x") as events:
            assert next(events).kind == "appeared"
            for offset in (Offset(5_000_000, 2000), Offset(7_000_000, 4000)):
                says.append(offset)
                wait_until(lambda offset=offset: known() == offset, PATIENCE)
                assert back.status.imports[0].clock_offset_ns == offset.offset_ns
            says.append(Offset(7_000_100, 4000))  # that is the same, as far as it can be measured
            wait_until(lambda: back.status.imports[0].clock_offset_ns == 7_000_100, PATIENCE)
            assert known() == (7_000_000, 4000)
            p.write(1)
            with there.consumer("x", "lossless", start="oldest") as c:
                assert next(c.batches(timeout=PATIENCE)).data.tolist() == [1]
            p.close()
            assert next(events).kind == "gone"  # and nothing in between
    wait_until(lambda: not there.channels(), PATIENCE)


def test_a_bridge_that_waits_for_the_network_is_closed_all_the_same(
    stack, machine, bridge, endpoint, wait_until
) -> None:
    here, there = machine("here"), machine("there")
    out = bridge(here, "lab", exports="*", listen=endpoint)
    line = Relay(stack, endpoint, rate=1e5)
    bridge(there, "office", imports="*", connect=line.endpoint)
    with here.producer("x", dtype="u1", shape=1 << 20, capacity=64) as p:
        there.wait_for("x", PATIENCE)
        for _ in range(50):
            with p.slot() as s:
                s.array[-1] = 1
        wait_until(lambda: out.status.exports[0].state == "network cannot keep up", PATIENCE)
        began = time.monotonic()
        out.close()
        assert time.monotonic() - began < PATIENCE / 2
    assert out.status.state == "closed"


def test_a_slow_line_carries_what_it_can_and_counts_the_rest(stack, machine, bridge, endpoint, wait_until) -> None:
    here, there = machine("here"), machine("there")
    out = bridge(here, "lab", exports="*", listen=endpoint, buffer_nbytes=1 << 20)
    line = Relay(stack, endpoint, rate=4e6)
    back = bridge(there, "office", imports="*", connect=line.endpoint)
    slots, nbytes = 1000, 32 * 1024
    with here.producer("x", dtype="i8", shape=nbytes // 8, capacity=64) as p:
        there.wait_for("x", PATIENCE)
        with there.consumer("x", "lossless", start="oldest") as c:
            for k in range(slots):
                with p.slot() as s:
                    s.array[...] = k
            counters = p.stats()  # it may wait for the thread that reads, but not for a line that needs 8 s
            assert_unhindered([counters["blocked_ns"] / 1e9, counters["evictions"]])
            assert out.status.exports[0].state == "network cannot keep up"
            wait_until(lambda: out.status.exports[0].backlog == 0, PATIENCE)
            with p.slot() as s:
                s.array[...] = slots
            received = 0
            while c.cursor <= slots:
                batch = c.next_batch(64, 1, PATIENCE, False)
                assert (batch.data == batch.seq[:, None]).all()
                received += len(batch)
            assert received + c.lost == slots + 1
            assert c.lost == back.status.lost > 0
            assert received > 32  # all that was in the backlog at its end
    assert out._exports._exports["x"]._backlog._generation <= 1, "what the backlog gave up was asked for again"
