"""The broker is killed, crowded, besieged and doubled; the data of those who have found each other flows on."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

import numpy as np
import psutil
import pytest
import zmq

from labhub import Messenger, ProducerInfo, runtime
from labhub.errors import BrokerUnreachable, LabHubError, QuotaExceeded
from labhub.hub import Hub, connect, start_broker, stop_broker
from labhub.transport.curve import CLIENT_KEY, KeyPair, data_directory, load_key
from labhub.transport.enrolled import ENROLLED
from tests.faults.broker_processes import (
    ANY_PORT,
    PATIENCE,
    Actor,
    broker,
    consume,
    crowd,
    produce,
    serve,
    serve_few,
    start,
)
from tests.faults.rounds import Fault

Wait = Callable[..., None]

CHANNELS = {first: [first, *(f"{first}.{k}" for k in range(9))] for first in ("a", "b")}
PERIOD = 0.001
"""Each of the two producers writes a slot each millisecond."""
BASELINE = 2.0
"""How long nothing is killed first (in seconds)."""
PAUSE_LIMIT = 0.2
"""How long a producer may pause for another reason than that it waits for a processor (in seconds). A new broker takes
longer than that to be there, so whoever waits for it is found out."""


class Traffic:
    """Two producers, and a lossless and a lossy reader of each, in processes of their own."""

    def __init__(self, stack: ExitStack) -> None:
        self.producers = {name: stack.enter_context(Actor(produce, CHANNELS[name], PERIOD)) for name in CHANNELS}
        for producer in self.producers.values():
            assert producer.hear() == "ready"
        both = [(name, mode) for name in CHANNELS for mode in ("lossless", "stream")]
        self.readers = {key: stack.enter_context(Actor(consume, *key)) for key in both}
        for reader in self.readers.values():
            assert reader.hear() == "ready"
        for producer in self.producers.values():
            producer.say("go")
        self.registered = [(n, self.producers[first].pid) for first in CHANNELS for n in CHANNELS[first]]

    def is_registered(self, hub: Hub) -> bool:
        """Whether the broker knows each channel once, as its producer's, and nothing else."""
        try:
            return [(c.name, c.producer_pid) for c in hub.channels()] == self.registered
        except BrokerUnreachable:
            return False

    def judge(self) -> tuple[list[np.ndarray], float]:
        """End it; check that every reader got exactly what was written.

        When each slot was written (in ns), and the longest pause of a producer but for a processor (in seconds).
        """
        for producer in self.producers.values():
            producer.say("stop")
        told = {name: producer.hear() for name, producer in self.producers.items()}
        produced = {name: slots for name, (slots, _) in told.items()}
        times: list[np.ndarray] = []
        for (name, mode), reader in self.readers.items():
            received, lost, good, stamps = reader.hear()
            assert good, f"{mode} reader of {name} got a slot that was never written, or out of order"
            assert received + lost == produced[name]
            if mode == "lossless":
                assert lost == 0
                times.append(stamps)
        assert [producer.hear() for producer in self.producers.values()] == ["closed"] * len(self.producers)
        return times, max(pause for _, pause in told.values())


@pytest.mark.fault(18, quick=6, full=100, p99=5.0)
def test_18_broker_killed_and_restarted_under_load(
    fault: Fault, wait_until: Wait, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        service, endpoint = start()
        stack.callback(lambda: service.kill())  # whichever it is then
        hub = stack.enter_context(connect())
        traffic = Traffic(stack)
        wait_until(lambda: traffic.is_registered(hub), PATIENCE, "the first registration")
        end = time.monotonic() + BASELINE
        wait_until(lambda: time.monotonic() > end, PATIENCE)
        killing_since = time.time_ns()
        for k in fault.each_round():
            service.kill()
            assert runtime.find_live() is None
            fault.happened()
            # At the same place and at another one by turns: the second is told by the connection file only.
            service, endpoint = start(endpoint if k % 2 else ANY_PORT)
            began = time.monotonic()
            wait_until(lambda: traffic.is_registered(hub), PATIENCE, f"registration anew with broker {k}")
            fault.recovered(time.monotonic() - began)
        wait_until(lambda: all(c.consumers == 2 for c in hub.channels("?")), PATIENCE, "the readers' return")
        stamps, idle = traffic.judge()
        hub.close()
        service.end()
    quiet = max(np.diff(t[t < killing_since]).max() for t in stamps) / 1e9
    killing = max(np.diff(t[t >= killing_since]).max() for t in stamps) / 1e9
    slots = sum(map(len, stamps))
    with capsys.disabled():
        print(
            f" [{slots:,} slots; longest pause {killing * 1e3:.0f} ms, {quiet * 1e3:.0f} ms before the kills,", end=""
        )
        print(f" {idle * 1e3:.0f} ms but for a processor]", end="")
    if fault.torture:
        assert idle < PAUSE_LIMIT


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(48)
"""ZMTP 3's, of a client; what should follow it is the HELLO of CURVE."""


def open_connections(process: psutil.Process) -> int:
    return sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))


@pytest.mark.fault(25, quick=1, full=10, p99=1.0)
def test_25_idle_sockets_that_never_finish_the_handshake(fault: Fault, wait_until: Wait) -> None:
    with broker() as (service, endpoint):
        process = psutil.Process(service.pid)
        host, port = endpoint.removeprefix("tcp://").split(":")
        public_key = runtime.find_live().public_key
        before = open_connections(process)
        for _ in fault.each_round():
            with ExitStack() as stack:
                idle = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(300)]
                for connection in idle[::2]:
                    connection.sendall(GREETING)
                wait_until(lambda: open_connections(process) >= before + 300, 10, "300 open connections")
                with fault.recovery(), Messenger() as messenger:
                    assert messenger.connect(endpoint, public_key, timeout=PATIENCE)
                    assert messenger.list_channels(timeout=PATIENCE) == []
                fault.happened(open_connections(process) >= before + 150)
                wait_until(lambda: open_connections(process) <= before, 20, "the end of the idle connections")
                # A handshake that was finished would have gone on beyond the greeting and the HELLO.
                for connection in idle:
                    assert len(connection.recv(1 << 16)) <= len(GREETING)


@pytest.mark.fault(26, quick=1, full=1, share=0.2, p99=1.0)
def test_26_registrations_of_10000_channels_by_100_clients_at_once(fault: Fault) -> None:
    clients, each, crowds = 100, 100, 4
    names = [[f"c{k}.{j}" for j in range(each)] for k in range(clients)]
    guest = KeyPair.random()
    data_directory().joinpath(ENROLLED).write_text(guest.public)
    for _ in fault.each_round():
        with ExitStack() as stack:
            place = stack.enter_context(Actor(serve_few, clients * each)).hear()
            members = [stack.enter_context(Actor(crowd, place, names[k::crowds], 20)) for k in range(crowds)]
            assert [member.hear(5 * PATIENCE) for member in members] == ["ready"] * crowds
            for member in members:
                member.say("look")
            took = [seconds for member in members for seconds in member.hear(5 * PATIENCE)]
            fault.happened(len(took) == clients * 20)
            for seconds in took:
                fault.recovered(seconds)
            judge_quota(place, guest, clients * each)


def judge_quota(place: tuple[str, str], guest: KeyPair, full: int) -> None:
    """One key has all the channels that it may have: what is told to it, and what others may."""
    info = ProducerInfo("x", os.getpid(), bytes(32), 1)
    with Messenger() as mine, Messenger(guest) as other:
        for messenger in (mine, other):
            assert messenger.connect(*place, timeout=PATIENCE)
        assert len(mine.list_channels(timeout=PATIENCE)) == full
        with pytest.raises(QuotaExceeded, match=f"one client key may register {full} channels; deregister some first"):
            mine.register_producer("x", info).result(PATIENCE)
        other.register_producer("y", info).result(PATIENCE)
        assert len(mine.list_channels(timeout=PATIENCE)) == full + 1


class Dealer:
    """A client that chose its routing id; `letter` marks everything that is its own."""

    def __init__(
        self, context: zmq.Context, place: tuple[str, str], key: KeyPair, letter: str, routing_id: bytes
    ) -> None:
        self.letter = letter
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTING_ID, routing_id)
        self.socket.curve_serverkey = place[1].encode()
        self.socket.curve_publickey, self.socket.curve_secretkey = key.public.encode(), key.secret.encode()
        self._monitor = self.socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.socket.connect(place[0])

    def is_connected(self) -> bool:
        return bool(self._monitor.poll(5000))

    def ask(self, numbers: range) -> None:
        """Send questions, and watch whatever happens."""
        self._send(b"WATCH_REQ", watch_id=self.letter)
        for number in numbers:
            self._send(b"DISC_REQ", channel_name="x", correlation_id=f"{self.letter}{number}")

    def _send(self, kind: bytes, **fields: str) -> None:
        self.socket.send_multipart([kind, json.dumps({"correlation_id": self.letter} | fields).encode()])

    def heard(self, seconds: float) -> list[str]:
        """What arrives until nothing has for so long: the ids of replies, and the watches of events."""
        ids = []
        while self.socket.poll(seconds * 1000):
            body = json.loads(self.socket.recv_multipart()[1])
            ids.append(body.get("correlation_id") or "event " + body["watch_id"])
        return ids

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)


@pytest.mark.fault(27, quick=3, full=20)
def test_27_two_clients_with_the_same_routing_id(fault: Fault) -> None:
    guest, mine = KeyPair.random(), load_key(CLIENT_KEY)
    data_directory().joinpath(ENROLLED).write_text(guest.public)
    with broker() as (_, endpoint), connect() as hub, zmq.Context() as context:
        place = endpoint, runtime.find_live().public_key
        for k in fault.each_round():
            keys, same = {"a": mine, "b": guest}, b"same%d" % k
            with ExitStack() as stack:
                both = [stack.enter_context(Dealer(context, place, keys[letter], letter, same)) for letter in keys]
                fault.happened(all(dealer.is_connected() for dealer in both))  # at the same time, with the same id
                for dealer in random.sample(both, 2):
                    dealer.ask(range(20))
                with hub.producer(f"new{k}", dtype="f8"):
                    heard = {dealer.letter: dealer.heard(0.15) for dealer in both}
            (first,) = (letter for letter in keys if heard[letter])  # libzmq lets one of them in
            assert {of(word) for word in heard[first]} == {first}
            with successor(context, place, keys["b" if first == "a" else "a"], same) as second:
                with hub.producer(f"more{k}", dtype="f8"):
                    heard_then = second.heard(0.15)
            assert "event c" in heard_then
            assert {of(word) for word in heard_then} == {"c"}


def successor(context: zmq.Context, place: tuple[str, str], key: KeyPair, routing_id: bytes) -> Dealer:
    """The same routing id in other hands: the first one's watch must not go on there."""
    for _ in range(100):
        second = Dealer(context, place, key, "c", routing_id)
        second.ask(range(1))
        if second.heard(0.15):
            return second
        with second:
            pass  # the broker has not noticed yet that the first one is gone, and did not let this one in
    raise AssertionError("nobody with this routing id is let in any more")


def of(word: str) -> str:
    """Whose a reply or an event is."""
    return word.removeprefix("event ")[0]


@pytest.mark.fault(31, quick=5, full=100)
def test_31_two_brokers_of_one_name_at_the_same_instant_over_a_stale_file(fault: Fault) -> None:
    for k in fault.each_round():
        stale = runtime.find()
        if k:
            assert stale is not None
            with pytest.raises(BrokerUnreachable, match="start one with `labhub broker start`"):
                connect()
        with Actor(serve, ANY_PORT) as one, Actor(serve, ANY_PORT) as other:
            assert (one.hear(), other.hear()) == ("ready", "ready")
            for contender in random.sample([one, other], 2):
                contender.say("go")
            told = {contender: contender.hear() for contender in (one, other)}
            ((winner, place),) = ((who, said) for who, said in told.items() if isinstance(said, tuple))
            ((loser, refusal),) = ((who, said) for who, said in told.items() if isinstance(said, LabHubError))
            assert f"a broker named 'default' runs already: pid {winner.pid} at {place[1]}" in str(refusal)
            assert runtime.find_live().pid == winner.pid != loser.pid
            assert stale != runtime.find_live()
            with connect() as hub:
                assert hub.channels() == []
            fault.happened()
    with broker():
        pass  # it removes in order what the killed ones left


@pytest.mark.fault(31, quick=2, full=8, p99=5.0)
def test_31_start_within_a_moment_of_a_kill(fault: Fault) -> None:
    running = start_broker(endpoint=ANY_PORT)
    for _ in fault.each_round():
        os.kill(running.pid, signal.SIGKILL)
        fault.happened()
        with fault.recovery():
            following = start_broker(endpoint=ANY_PORT)
        assert following.pid != running.pid
        with connect() as hub:
            assert hub.channels() == []
        running = following
    stop_broker()
