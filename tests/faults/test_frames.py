"""Faults 22, 23 and 24: frames, sizes and JSON that no client of labhub's would send."""

from __future__ import annotations

import json
import os
import random
import socket
import string
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labhub import Messenger, ProducerInfo
from labhub.errors import ProtocolError
from labhub.protocol import codec
from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.client_state import ClientState
from labhub.protocol.messages import MAX_MESSAGE_NBYTES, TYPE_NAME
from labhub.runtime import ConnectionFile
from tests.faults.rounds import Fault
from tests.faults.security_peers import RawPeer, broker_process

KINDS = [name.encode() for name in TYPE_NAME.values()]
REQUESTS = [kind for kind in KINDS if kind.endswith(b"_REQ")]
GOOD = {"channel_name": "c", "shm_name": "c", "schema_hash": "00" * 32, "schema_version": 1, "producer_pid": 1}
GOOD |= {"watch_id": "w", "pattern": "*", "consumer_pid": 1, "seq": 1, "metrics": {"a": 1}, "channels": ["c"]}
LITTLE = 8_000_000
"""So much a broker's memory may move (in bytes): what its allocator keeps, and nothing that grows with the rounds."""


class Memory:
    """The resident memory of a process, from when it has warmed up."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.samples: list[int] = []

    def sample(self) -> None:
        self.samples.append(self._process.memory_info().rss)

    def require_flat(self) -> None:
        warm = self.samples[len(self.samples) // 5 :]
        assert max(warm) - warm[0] < LITTLE, f"the memory grew from {warm[0]} to {max(warm)} bytes"


@contextmanager
def good_client(place: ConnectionFile, fault: Fault) -> Iterator[None]:
    """Go on asking a broker, beside whatever is done inside, and note how long each answer takes."""
    over = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            with Messenger() as messenger:
                assert messenger.connect(place.endpoint, place.public_key, timeout=30)
                messenger.register_producer("good", ProducerInfo("good", os.getpid(), bytes(32), 1)).result(30)
                while not over.wait(0.002):
                    with fault.recovery():
                        assert messenger.discover_producer("good", timeout_ms=30_000) is not None
                messenger.deregister_producer("good").result(30)
        except BaseException as error:  # noqa: BLE001  # for the test's own thread
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    assert not failures, failures


def refusals(place: ConnectionFile) -> float:
    """How many messages a broker has refused or ignored, as it counts itself."""
    with Messenger() as messenger:
        assert messenger.connect(place.endpoint, place.public_key)
        counts = messenger.query_metrics().values
    return counts["ignored"] + sum(n for name, n in counts.items() if name.startswith("refused."))


def garbage(chance: random.Random) -> list[bytes]:
    """Make a message that is broken in one of many ways, or nearly."""
    broken = bytearray(json.dumps(GOOD).encode())
    for _ in range(chance.randrange(4)):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    kind, body = chance.choice(KINDS), bytes(broken)
    noise = chance.randbytes(chance.choice((0, 1, 40, 1000)))
    return chance.choice(
        [
            [kind, body], [kind, body], [b"C", kind, body], [kind, body[: chance.randrange(len(body))]], [kind, noise],
            [noise, body], [kind + noise, body], [b""] * chance.randrange(1, 6), [kind], [body, kind],
            [kind, body, noise], [b"C"] * 3, [noise] * chance.randrange(1, 40), [kind.lower(), body],
        ]
    )  # fmt: skip


@pytest.mark.fault(22, quick=5_000, full=100_000, p99=0.5)
def test_22_garbage_frames_of_an_enrolled_key(fault: Fault) -> None:
    chance = random.Random(22)
    outcomes: Counter[bytes] = Counter()
    with broker_process() as place, RawPeer(place) as peer:
        memory, before = Memory(place.pid), refusals(place)
        with good_client(place, fault):
            for _ in fault.each_round():
                if replies := peer.flood(garbage(chance)):
                    outcomes.update(reply[-2] for reply in replies)
                    memory.sample()
            outcomes.update(reply[-2] for reply in peer.settle())
        assert outcomes.total() == fault.rounds
        assert refusals(place) - before == outcomes[b"ERROR"]
        fault.happened(outcomes[b"ERROR"])
        assert outcomes[b"ERROR"] > fault.rounds / 2
        memory.require_flat()


def say_and_listen(place: tuple[str, int], said: bytes) -> None:
    """Say something to a bare socket, and wait until the other side hangs up."""
    with socket.create_connection(place, timeout=30) as connection:
        try:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        except TimeoutError:
            raise
        except OSError:  # it hung up on the first words
            pass


@pytest.mark.fault(22, quick=60, full=1000, share=0.3, p99=0.5)
def test_22_garbage_on_the_bare_socket(fault: Fault) -> None:
    chance = random.Random(22)
    greeting = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE" + bytes(47)  # ZMTP 3.0, with the mechanism
    hello = b"\4\xc8\5HELLO\1\0" + bytes(192)
    with broker_process() as place:
        host, port = place.endpoint.removeprefix("tcp://").split(":")
        memory, before = Memory(place.pid), refusals(place)
        with good_client(place, fault):
            for _ in fault.each_round():
                said = [b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(4000), greeting + chance.randbytes(4000)]
                said += [greeting[: chance.randrange(64)], greeting + hello, greeting + hello[: chance.randrange(200)]]
                said += [greeting + b"\2" + b"\xff" * 8 + bytes(4000), greeting.replace(b"CURVE", b"NULL\0")]
                say_and_listen((host, int(port)), chance.choice(said))
                fault.happened()
                memory.sample()
        assert refusals(place) == before  # nothing of it has come through to where messages are counted
        memory.require_flat()


def registration(nbytes: int) -> ProducerInfo:
    return ProducerInfo("c", os.getpid(), bytes(32), 1, {"note": "x" * nbytes})


SIZES = [1, 1000, MAX_MESSAGE_NBYTES, MAX_MESSAGE_NBYTES + 1, 100_000, 1_000_000, 10_000_000, 100_000_000]


@pytest.mark.fault(23, quick=len(SIZES), full=2 * len(SIZES), share=0.2, p99=0.5)
def test_23_message_of_up_to_100_megabytes(fault: Fault) -> None:
    chance = random.Random(23)
    with broker_process() as place, Messenger() as messenger, good_client(place, fault):
        assert messenger.connect(place.endpoint, place.public_key)
        memory = Memory(place.pid)
        for number in fault.each_round():
            nbytes = SIZES[number] if number < len(SIZES) else chance.choice(SIZES)
            fits = nbytes < MAX_MESSAGE_NBYTES - 1000  # what else is in the message
            memory.sample()
            with RawPeer(place) as peer:
                assert bool(peer.ask([b"DISC_REQ", bytes(nbytes)], 30.0 if fits else 0.3)) == (
                    nbytes <= MAX_MESSAGE_NBYTES - 100  # CURVE adds a few bytes of its own
                )
                fault.happened()
            if fits:
                messenger.register_producer("c", registration(nbytes)).result(30)
                messenger.deregister_producer("c").result(30)
            else:
                with pytest.raises(ProtocolError, match="a broker takes 65536; shorten its metadata"):
                    messenger.register_producer("c", registration(nbytes)).result(30)
            memory.sample()
        assert messenger.status == "connected"
        memory.require_flat()


@pytest.mark.fault(23, quick=3, full=10, share=0.1)
def test_23_message_of_many_frames(fault: Fault) -> None:
    """No setting of libzmq limits them: decision 8. What they took is used again, and does not grow."""
    with broker_process() as place:
        memory = Memory(place.pid)
        for _ in fault.each_round():
            with RawPeer(place) as peer:
                reply = peer.ask([b"DISC_REQ", *[bytes(MAX_MESSAGE_NBYTES - 100)] * 160])
                assert reply is not None
                assert b"too long" in reply[1]
                fault.happened()
            memory.sample()
        assert memory.samples[-1] - memory.samples[0] < 2 * LITTLE


def nested(opening: bytes, depth: int, closing: bytes = b"") -> bytes:
    return opening * depth + b"1" + closing * depth


def metadata(text: bytes) -> bytes:
    return json.dumps(GOOD | {"metadata": {"a": 0}}).encode().replace(b'"a": 0', b'"a": ' + text)


TRAPS = [
    b"", b" ", b"null", b"7", b'"c"', b"[]", b"{", b"{}", b"{}{}", b"\0", b"\xef\xbb\xbf{}", b"// c\n{}", b"{'a':1}",
    nested(b"[", 60_000), nested(b"[", 30_000, b"]"), nested(b'{"a":', 10_000), metadata(nested(b"[", 30_000, b"]")),
    metadata(b"[" * 40 + b"]" * 40), metadata(b"9" * 5000), metadata(b"1e999"), metadata(b"-Infinity"),
    metadata(b"NaN"), metadata(b'"\xff"'), metadata(b'"\xed\xa0\x80"'), metadata(b'"\\ud800"'),
    metadata(b'"\\udc00\\ud800"'), metadata(b'"\n"'), metadata(b"1,}"), metadata(b"01"), metadata(b"0x1"),
    metadata(b"tru"), metadata(b'"'),
    *(json.dumps(GOOD | {"channel_name": wrong}).encode() for wrong in (None, True, 7, [], {}, "", "../x", "a" * 129)),
    *(json.dumps(GOOD | {"producer_pid": wrong}).encode() for wrong in (-1, 1.5, "1", 2**63, 10**30, None)),
    *(json.dumps(GOOD | {"schema_hash": wrong}).encode() for wrong in ("0", "g" * 64, 0, "0" * 65)),
    *(json.dumps(GOOD | {"metadata": wrong}).encode() for wrong in ([], "x", None, 7)),
    *(json.dumps(GOOD | {"correlation_id": wrong}).encode() for wrong in (7, None, "x" * 65, ["x"])),
]  # fmt: skip


@pytest.mark.fault(24, quick=len(TRAPS), full=len(TRAPS), share=0.05)
def test_24_json_traps(fault: Fault) -> None:
    with broker_process() as place, RawPeer(place) as peer:
        for body in fault.each(TRAPS):
            reply = peer.ask([b"REG_REQ", body])
            assert reply is not None
            assert (reply[0], json.loads(reply[1])["error_code"]) == (b"ERROR", "INVALID_REQUEST"), body[:80]
            fault.happened()
        # Of a key that occurs twice the last one counts, if each of them could.
        for twice, answer in ((b'{"limit":1,"limit":2}', b"LIST_ACK"), (b'{"limit":0,"limit":2}', b"ERROR")):
            assert (peer.ask([b"LIST_REQ", twice]) or [])[0] == answer


@pytest.mark.fault(24, quick=6, full=6, share=0.05)
def test_24_json_200_000_deep(fault: Fault) -> None:
    """What does not fit into a message of a broker's does fit into one to a client; neither may recurse so deep."""
    bodies = [nested(b"[", 200_000), nested(b"[", 200_000, b"]"), nested(b'{"a":', 200_000)]
    bodies += [b'{"metadata":' + body + b"}" for body in bodies]
    for body in fault.each(bodies):
        with pytest.raises(ProtocolError):
            codec.decode(codec.Envelope("REG_REQ", body))
        (out,) = BrokerState(probe=lambda _: "unknown").receive(Peer(b"x"), [b"REG_REQ", body], 0.0)
        assert json.loads(out.frames[1])["error_code"] == "INVALID_REQUEST"
        assert ClientState().receive([b"DISC_ACK", body], 0.0) == []
        fault.happened()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([2**63, "c", "../"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*GOOD, "metadata", "correlation_id"]) | st.text(max_size=6), inner, max_size=6
        )
    ),
    max_leaves=12,
)
CUT = st.integers(0, 400)
BODIES = st.one_of(
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*GOOD, "metadata"]), VALUES).map(lambda d: json.dumps(GOOD | d).encode()),
    st.tuples(VALUES, CUT).map(lambda pair: json.dumps(GOOD | {"metadata": {"a": pair[0]}}).encode()[: pair[1]]),
    st.text(string.printable, max_size=60).map(str.encode),
    st.binary(max_size=60),
)


@pytest.mark.fault(24, quick=200, full=2_000, share=0.3)
def test_24_json_at_random(fault: Fault) -> None:
    acknowledged = {kind.replace(b"_REQ", b"_ACK") for kind in REQUESTS}
    with broker_process() as place, RawPeer(place) as peer:

        @settings(max_examples=fault.at_least, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from([b"REG_REQ", *REQUESTS]), BODIES)
        def answered(kind: bytes, body: bytes) -> None:
            with fault.round():
                reply = peer.ask([kind, body])
                assert reply is not None
                if reply[0] == b"ERROR":
                    code = json.loads(reply[1])["error_code"]
                    fault.happened(code == "INVALID_REQUEST")
                else:
                    assert reply[0] in acknowledged

        answered()
