"""Channels between two brokers over a real network session on the loopback."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zenoh

import labhub
from labhub.bridging import wire
from labhub.bridging.backlog import Backlog
from labhub.errors import BridgeError, InvalidArgument, MissingDependency
from tests.bridge.conftest import free_endpoint

PATIENCE = 30


def numbers(consumer, until):
    """Read until that seq is reached; the numbers."""
    got = []
    for batch in consumer.batches(timeout=PATIENCE):
        assert batch.data.tolist() == batch.seq.tolist()
        got += batch.data.tolist()
        if batch.seq[-1] >= until - 1:
            return got
    raise AssertionError(f"the stream ended after {got[-1:]}")


@pytest.fixture
def pair(machine, bridge, endpoint):
    """Hub and bridge of a machine that exports everything, and of one that imports everything."""
    here, there = machine("here"), machine("there")
    out = bridge(here, "lab", exports="*", listen=endpoint)
    back = bridge(there, "office", imports="lab/*", connect=endpoint)
    back.wait_connected(PATIENCE)
    return here, there, out, back


def test_a_channel_appears_as_it_is(pair) -> None:
    here, there, out, back = pair
    frame = np.zeros((2, 3), "f4")
    with here.producer("camera", like=frame, units="counts", capacity=16, checksum="enforced") as p:
        for k in range(5):
            with p.slot() as s:
                s.array[...] = k
                s.nbytes = 24 if k else 8
        info = there.wait_for("camera", PATIENCE)
        assert info.schema == here.schema("camera")
        assert (info.capacity, info.policy) == (16, "Sequential_sync")
        assert info.origin["site"] == "lab"
        assert info.origin["host"]
        assert abs(info.origin["clock_offset_ns"]) <= info.origin["clock_round_trip_ns"] / 2
        with there.consumer("camera", "lossless", start="oldest") as c, here.consumer("camera", start="oldest") as o:
            batch, origin = (next(x.batches(min_slots=5, timeout=PATIENCE)) for x in (c, o))
            for name in ("seq", "timestamp_ns", "nbytes", "flags", "checksum"):
                assert batch.headers[name].tolist() == origin.headers[name].tolist(), name
            assert np.array_equal(batch.data, origin.data)
        assert out.status.exports[0].state == "sending"
        imported = back.status.imports[0]
        assert (imported.state, imported.received, imported.lost) == ("receiving", 5, 0)
        assert repr(back.status) == "BridgeStatus('office', connected, import 'lab/camera': receiving)"
        assert "camera" in back.status.explain()
        assert "camera" in back.status._repr_html_()


def test_nothing_of_a_lossless_stream_is_lost(pair) -> None:
    here, there, _, back = pair
    n = 20_000
    with here.producer("x", dtype="i8", capacity=256) as p:
        there.wait_for("x", PATIENCE)
        with there.consumer("x", "lossless", start="oldest") as c:
            writer = threading.Thread(target=lambda: [p.write(k) for k in range(n)])
            writer.start()
            got = numbers(c, n)
            writer.join(60)
            assert got == list(range(n))
            assert c.lost == back.status.lost == 0


def test_small_slots_travel_together(pair, endpoint) -> None:
    here, there, _, _ = pair
    config = zenoh.Config()
    config.insert_json5("connect/endpoints", f'["{endpoint}"]')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("listen/endpoints", "[]")
    messages = []
    with zenoh.open(config) as spy:
        spy.declare_subscriber("labhub/**/data", messages.append)
        n = 100_000
        with here.producer("records", dtype="V64", capacity=n) as p:
            there.wait_for("records", PATIENCE)
            with there.consumer("records", "lossless") as c:
                p.write_many(np.zeros(n, "V64"))
                received = 0
                while received < n:
                    received += len(c.next_batch(n, 1, PATIENCE, False))
        assert 0 < len(messages) < n / 500


def test_a_lossy_channel_stays_one(pair) -> None:
    here, there, out, _ = pair
    with here.producer("fast", dtype="i8", capacity=8, lossless=False) as p:
        info = there.wait_for("fast", PATIENCE)
        assert info.policy == "Latest_only"
        with there.consumer("fast", start="oldest") as c:
            first = c.cursor
            for k in range(3000):
                p.write(k)
            got = numbers(c, 3000)
            assert got[-1] == 2999
            assert len(got) + c.lost == 3000 - first
        assert not out.status.exports[0].lossless


def test_the_end_and_the_return_of_a_channel(pair, wait_until) -> None:
    here, there, out, back = pair
    p = here.producer("x", dtype="i8")
    there.wait_for("x", PATIENCE)
    ending, following = there.consumer("x", start="oldest"), there.consumer("x", start="oldest", follow=True)
    with ending, following:
        p.write_many(range(10))
        p.close()
        assert [k for batch in ending.batches(timeout=PATIENCE) for k in batch.data.tolist()] == list(range(10))
        assert numbers(following, 10) == list(range(10))
        wait_until(lambda: not there.channels(), PATIENCE, "the end of the channel over there")
        wait_until(lambda: back.status.imports[0].state == "ended", PATIENCE)
        wait_until(lambda: out.status.exports[0].state == "gone", PATIENCE)
        with here.producer("x", dtype="i8") as p:
            p.write_many(range(5))
            assert numbers(following, 5) == list(range(5))


def test_a_schema_that_changes(pair, wait_until) -> None:
    here, there, _, back = pair
    with here.producer("x", dtype="i8", units="bar") as p:
        there.wait_for("x", PATIENCE)
        p.write(1)
    wait_until(lambda: back.status.imports[0].state == "ended", PATIENCE)
    with here.producer("x", dtype="f4", shape=3):
        wait_until(lambda: back.status.imports[0].state == "receiving", PATIENCE)
        assert "its schema has changed" in back.status.imports[0].detail
        assert "<f4" in back.status.imports[0].detail
        assert there.schema("x") == here.schema("x")


def test_loops_are_not_closed(machine, bridge, endpoint, wait_until) -> None:
    here, there = machine("here"), machine("there")
    first = bridge(here, "lab", exports="*", imports="*", reexport=True, listen=endpoint)
    second = bridge(there, "office", exports="*", imports="*", reexport=True, connect=endpoint)
    with here.producer("x", dtype="i8") as p:
        there.wait_for("x", PATIENCE)
        wait_until(lambda: any(i.state == "loop" for i in first.status.imports), PATIENCE, "the loop")
        p.write_many(range(10))
        with there.consumer("x", start="oldest") as c:
            assert numbers(c, 10) == list(range(10))
        assert [i.state for i in second.status.imports] == ["receiving"]


def test_what_was_imported_goes_on_only_if_asked(machine, bridge, endpoint, wait_until) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    second = free_endpoint()
    bridge(a, "a", exports="*", listen=endpoint)
    bridge(b, "b", exports="*", imports="a/*", connect=endpoint, listen=second, reexport=True)
    bridge(c, "c", imports="b/*", connect=second)
    with a.producer("x", dtype="i8") as p:
        info = c.wait_for("x", PATIENCE)
        assert len(info.origin["path"]) == 2
        p.write_many(range(10))
        with c.consumer("x", start="oldest") as reader:
            assert numbers(reader, 10) == list(range(10))


def test_one_name_of_two_machines(machine, bridge, endpoint, wait_until) -> None:
    a, b, c = machine("a"), machine("b"), machine("c")
    second = free_endpoint()
    bridge(a, "left", exports="*", listen=endpoint)
    bridge(b, "right", exports="*", listen=second)
    back = bridge(c, "office", imports="*", connect=[endpoint, second])
    with a.producer("x", dtype="i8") as p:
        c.wait_for("x", PATIENCE)
        with b.producer("x", dtype="i8") as other:
            wait_until(lambda: any(i.state == "conflict" for i in back.status.imports), PATIENCE)
            conflict = next(i for i in back.status.imports if i.state == "conflict")
            assert "'left' and 'right'" in conflict.detail
            other.write(99)
            p.write_many(range(10))
            with c.consumer("x", start="oldest") as reader:
                assert numbers(reader, 10) == list(range(10))
        p.close()
        with b.producer("x", dtype="i8") as other:  # the name is free now
            wait_until(lambda: c.channels() and c.find("x").origin["site"] == "right", PATIENCE)


def test_a_producer_here_keeps_its_channel(pair, wait_until) -> None:
    here, there, _, back = pair
    with there.producer("x", dtype="i8") as own, here.producer("x", dtype="i8") as p:
        wait_until(lambda: any(i.state == "conflict" for i in back.status.imports), PATIENCE)
        assert "this process" in back.status.imports[0].detail
        p.write(5)
        own.write(0)
        with there.consumer("x", start="oldest") as reader:
            assert numbers(reader, 1) == [0]
        own.close()
        there.wait_for("x", PATIENCE)
        wait_until(lambda: back.status.imports[0].state == "receiving", PATIENCE)


def test_nonsense_from_the_network(pair, wait_until) -> None:
    here, there, out, back = pair
    stranger = out._session
    with here.producer("x", dtype="i8") as p:
        there.wait_for("x", PATIENCE)
        hub = there.find("x").origin["hub"]
        address = wire.Address("lab", hub, "x")
        instance = bytes.fromhex(there.find("x").origin["instance_id"])
        run = bytes.fromhex(out._exports._exports["x"]._run)
        head = wire._HEAD.pack(1, 0, 3, 1, 1 << 40, run, instance, 0, 0)
        far = wire._HEAD.pack(1, 0, 1, 1, 1 << 40, run, instance, 0, 1 << 60) + bytes(8)
        for payload, attachment in (
            (b"", None),
            (b"x", b"y"),
            (bytes(5), head),
            (bytes(8), far),
            (bytes(8), head[:-1]),
        ):
            stranger.put(address.data, payload, attachment=attachment)
        for key in (
            "labhub/lab/0/../alive/0",
            "labhub/lab/0/x y/alive/0",
            "labhub/lab/0/$*/alive/1",
            "labhub/a/b/c/alive/d",
        ):
            try:
                stranger.liveliness().declare_token(key)
            except zenoh.ZError:
                continue
        wait_until(lambda: back.status.imports[0].state == "refused", PATIENCE)
        with there.consumer("x", start="oldest") as reader:
            p.write_many(range(10))
            assert numbers(reader, 10) == list(range(10))
        wait_until(lambda: back.status.imports[0].state == "receiving", PATIENCE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "whom to call or where to listen"),
        ({"exports": "a/b", "listen": "tcp/127.0.0.1:0"}, "no pattern"),
        ({"imports": "a/b/c", "listen": "tcp/127.0.0.1:0"}, "no pattern"),
        ({"exports": "a b", "listen": "tcp/127.0.0.1:0"}, "no pattern"),
        ({"listen": "nonsense"}, "configuration|network"),
        ({"connect": "tcp://127.0.0.1:7447"}, "write 'tcp/127.0.0.1:7447'"),
        ({"connect": "tcp/127.0.0.1"}, "no port"),
        ({"connect": "tcp/[::1]"}, "no port"),
        ({"config": "/nowhere/zenoh.json5"}, "configuration"),
        ({"site": "a/b", "listen": "tcp/127.0.0.1:0"}, "site"),
        ({"buffer_nbytes": 0, "listen": "tcp/127.0.0.1:0"}, "buffer_nbytes"),
    ],
)
def test_wrong_arguments(machine, options, words) -> None:
    with pytest.raises((InvalidArgument, BridgeError), match=words):
        labhub.bridge(**{"hub": machine("here"), "site": "lab", **options})


def test_an_address_that_is_taken(machine, bridge, endpoint) -> None:
    bridge(machine("here"), "lab", listen=endpoint)
    with pytest.raises(BridgeError, match="cannot be opened"):
        labhub.bridge(hub=machine("there"), site="lab", listen=endpoint)


def test_nobody_there(machine, bridge, endpoint) -> None:
    lonely = bridge(machine("here"), "lab", imports="*", connect=endpoint)
    with pytest.raises(BridgeError, match="refused") as raised:
        lonely.wait_connected(3.0)
    assert raised.value.endpoint == endpoint
    assert lonely.status.state == "not connected"
    assert "refused" in lonely.status.problems[0]


def test_without_zenoh(monkeypatch) -> None:
    for name in [n for n in sys.modules if n.startswith("labhub.bridging.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zenoh", None)
    with pytest.raises(MissingDependency, match=r"pip install 'labhub\[bridge\]'"):
        labhub.bridge(listen="tcp/127.0.0.1:0")


def test_what_was_written_before_the_end_of_the_bridge_arrives(pair) -> None:
    here, there, out, _ = pair
    with here.producer("x", dtype="i8", shape=1000, capacity=1000) as p:
        there.wait_for("x", PATIENCE)
        with there.consumer("x", "lossless", start="oldest") as c:
            for k in range(1000):
                with p.slot() as s:
                    s.array[...] = k
            out.close()
            received = 0
            while received < 1000:
                received += len(c.next_batch(1000, 1, PATIENCE, False))
            assert c.lost == 0


@pytest.mark.parametrize("step", ["append", "take"])
def test_what_is_in_hand_at_the_end_of_the_bridge_arrives(pair, monkeypatch, step) -> None:
    here, there, out, _ = pair
    in_hand = threading.Event()
    real = getattr(Backlog, step)

    def slow(backlog: Backlog, *args: object) -> object:
        taken = real(backlog, *args) if step == "take" else None
        if step == "append" or taken is not None:
            in_hand.set()
            time.sleep(0.3)  # the machine is busy with something else
        return real(backlog, *args) if step == "append" else taken

    monkeypatch.setattr(Backlog, step, slow)
    with here.producer("x", dtype="i8", capacity=1000) as p:
        there.wait_for("x", PATIENCE)
        with there.consumer("x", "lossless", start="oldest") as c:
            monkeypatch.setattr(Backlog, step, slow)
            p.write_many(range(1000))
            assert in_hand.wait(PATIENCE)
            out.close()
            assert numbers(c, 1000) == list(range(1000))


def test_close_twice(machine, bridge, endpoint) -> None:
    b = bridge(machine("here"), "lab", listen=endpoint)
    b.close()
    b.close()
    assert b.status.state == "closed"
    assert repr(b) == "Bridge('lab', closed)"


UNCLOSED = """
import labhub
bridge = labhub.bridge(hub=labhub.connect("here"), {})
"""


@pytest.mark.parametrize("what", ["exports='*', listen='{}'", "imports='lab/*', connect='{}'"])
def test_a_program_that_closes_no_bridge_ends(machine, endpoint, what) -> None:
    """Zenoh's threads are no daemons: Python would wait for them for ever."""
    machine("here")
    program = UNCLOSED.format(what.format(endpoint))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_bridges_that_export_the_same(pair, bridge, endpoint) -> None:
    here, there, _, back = pair
    other = free_endpoint()
    bridge(here, "lab", exports="*", listen=other)
    both = bridge(there, "office", imports="lab/*", connect=[endpoint, other])
    back.close()
    with here.producer("x", dtype="i8") as p:
        there.wait_for("x", PATIENCE)
        p.write_many(range(1000))
        with there.consumer("x", "lossless", start="oldest") as c:
            assert numbers(c, 1000) == list(range(1000))
        assert [(i.received, i.lost) for i in both.status.imports] == [(1000, 0)]
