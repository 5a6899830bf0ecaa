"""The broker in the background: started once, found, stopped, and never left half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from labhub import runtime
from labhub.errors import BrokerUnreachable, InvalidName, LabHubError
from labhub.hub import connect, named_broker, running_broker, start_broker, stop_broker

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def background_broker():
    """A broker in a process of its own."""
    yield start_broker(endpoint=ANY_PORT)
    if runtime.find_live():
        stop_broker()


def test_starting_twice_is_harmless_and_the_broker_outlives_its_starter():
    program = textwrap.dedent(f"""
        from labhub.hub import start_broker
        print(start_broker(endpoint={ANY_PORT!r}).pid)
    """)
    pid = int(subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=60).stdout)
    try:
        assert start_broker().pid == running_broker().pid == pid
        with connect(start=True) as hub:
            assert hub.status == "connected"
    finally:
        assert stop_broker().pid == pid
    assert runtime.find() is None


def test_connect_starts_a_broker_that_is_not_there():
    with connect("lab2", start=True) as hub:
        try:
            assert hub.channels() == []
        finally:
            assert stop_broker("lab2").name == "lab2"


def test_many_starters_get_one_broker():
    found = []
    starters = [threading.Thread(target=lambda: found.append(start_broker(endpoint=ANY_PORT).pid)) for _ in range(3)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    try:
        assert len(found) == 3
        assert set(found) == {running_broker().pid}
    finally:
        stop_broker()


def test_a_second_broker_of_the_name_is_refused():
    with (
        named_broker(endpoint=ANY_PORT) as service,
        pytest.raises(LabHubError, match=rf"'default' runs already: pid {os.getpid()} at"),
    ):
        service.start()
        with named_broker(endpoint=ANY_PORT):
            pass


def test_two_brokers_of_different_names_share_a_machine():
    with named_broker("a") as first, named_broker("b") as second:
        assert first.start().endpoint != second.start().endpoint
        with connect("a") as hub_a, connect("b") as hub_b, hub_a.producer("x", dtype="f8"):
            assert hub_b.channels() == []
            with hub_b.producer("x", dtype="i4"):
                assert hub_a.find("x").layout == "float64"


def test_a_killed_broker_is_not_taken_for_a_running_one(background_broker, wait_until):
    os.kill(background_broker.pid, signal.SIGKILL)
    wait_until(lambda: not background_broker.alive)
    assert runtime.find() == background_broker
    with pytest.raises(BrokerUnreachable, match="labhub broker start"):
        connect()
    with pytest.raises(BrokerUnreachable):
        stop_broker()
    assert start_broker(endpoint=ANY_PORT).pid != background_broker.pid


def test_a_broker_that_cannot_listen_says_why():
    with pytest.raises(BrokerUnreachable, match=r"did not start: labhub: .*192\.0\.2\.1"):
        start_broker(endpoint="tcp://192.0.2.1:5570")
    with pytest.raises(InvalidName):
        start_broker("../x")


def test_stopping_removes_what_dead_producers_left(background_broker, private_dirs):
    program = textwrap.dedent("""
        import os, signal, labhub
        producer = labhub.connect().producer("x", dtype="f8")
        producer.write(1.0)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == -signal.SIGKILL
    segment = private_dirs / "shm" / "default" / "x"
    assert segment.exists()
    with connect() as hub, hub.producer("y", dtype="f8") as living:
        stop_broker()
        assert not segment.exists()
        assert segment.with_name("y").exists()
        assert living.write(1.0) == 0
