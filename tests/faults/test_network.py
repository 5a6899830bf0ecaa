"""The network between a client and its broker is cut; what they share in memory goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from labhub import runtime
from labhub.protocol.messages import HEARTBEAT_INTERVAL
from labhub.transport.curve import KeyPair, data_directory
from labhub.transport.enrolled import ENROLLED
from tests.faults.network_namespaces import HERE, Cable, Place, Python, can_be_made
from tests.faults.rounds import Fault

Wait = Callable[..., None]

ENDPOINT = f"tcp://{HERE}:5570"
SERVE = (sys.executable, "-m", "labhub.cli", "broker", "run", "--listen", ENDPOINT)
TIMEOUT = 1.0
"""How long the client waits for an answer (in seconds)."""
NOTICE = 15.0
"""Heartbeats tell that nobody is there, 6 s after the last sign of life; this is that on a busy machine."""

CLIENT = f"""
import time, labhub
hub = labhub.connect("far", endpoint={ENDPOINT!r}, public_key={{key!r}}, timeout={TIMEOUT})
producer = hub.producer("x", dtype="i8", evict_after=None)
consumer = hub.consumer("x", mode="lossless")
stream = consumer.batches(timeout=10)

def ask(call):
    began = time.monotonic()
    try:
        call()
        said = "answered"
    except labhub.errors.LabHubError as error:
        said = type(error).__name__
    return said, time.monotonic() - began

def flow(seconds):
    began, first, got = time.monotonic(), producer.next_seq, []
    while time.monotonic() < began + seconds:
        producer.write(producer.next_seq)
        got += next(stream).data.tolist()
    return got == list(range(first, producer.next_seq)) and len(got) > 100 and consumer.lost == 0
"""
VIEW = """
import labhub
hub = labhub.connect(timeout=30)
def see():
    return [[c.name, c.liveness] for c in hub.channels()]
"""


def serve(here: Place, wait_until: Wait) -> int:
    """Start a broker that listens to other machines; its pid, once it does."""
    here.start(*SERVE)
    wait_until(lambda: runtime.find_live() is not None, 60, "the broker")
    return runtime.find_live().pid


def stop(pid: int, wait_until: Wait) -> None:
    """Stop the broker, and wait until it has left nothing behind."""
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: runtime.find() is None, 60, "the end of the broker")


@pytest.mark.skipif(not can_be_made(), reason="network namespaces and virtual cables cannot be made here")
@pytest.mark.fault(29, quick=1, full=4, p99=5.0)
def test_29_network_cut_between_client_and_broker(fault: Fault, wait_until: Wait) -> None:
    with ExitStack() as stack:
        here = Place(stack)
        there = Place(stack, within=here)
        cable = Cable(here, there)
        refused = here.run(*SERVE)
        assert refused.returncode != 0
        assert "no client key is enrolled" in refused.stderr
        data_directory().joinpath(ENROLLED).write_text(KeyPair.random().public)
        pid = serve(here, wait_until)
        client = Python(there, CLIENT.replace("{key!r}", repr(runtime.find_live().public_key)))
        view = Python(here, VIEW)
        for k in fault.each_round():
            assert client(f"flow({HEARTBEAT_INTERVAL} + 0.5)")  # who never sent a heartbeat cannot be missed
            assert client("hub.status") == "connected"
            assert view("see()") == [["x", "alive"]]
            silently = bool(k % 2)
            cable.cut(silently=silently)
            for call in ("hub.channels", "lambda: hub.producer('y', dtype='i8')", "lambda: hub.consumer('x')"):
                said, seconds = client(f"ask({call})")
                assert said == "BrokerUnreachable"
                assert seconds < 2 * TIMEOUT + 1.0
            fault.happened()
            assert client("flow(0.5)")
            wait_until(lambda: client("hub.status") == "connecting", NOTICE, "the client's notice")
            assert "connecting" in client("repr(hub)")
            if k % 4 in (0, 3):
                stop(pid, wait_until)  # this one forgets everything
                pid = serve(here, wait_until)
                assert view("see()") == []
            else:
                wait_until(lambda: view("see()") == [["x", "stalled"]], NOTICE, "the broker's notice")
            cable.mend(silently=silently)
            with fault.recovery():
                wait_until(lambda: view("see()") == [["x", "alive"]], 60, "registration anew")
            assert client("ask(hub.channels)")[0] == "answered"
            assert client("flow(0.5)")
        client("hub.close()")
        view("hub.close()")
        stop(pid, wait_until)
