"""How long a client's requests take, and how much the broker grows, while somebody else is in the way.

Run it with ``python benchmarks/strangers.py [RESULT.json]``: a broker process, a client that asks where channels are,
and for each row of docs/security.md that concerns a broker a process that provokes it meanwhile. It takes a minute.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import discovery
import psutil
import zmq
from common import private_directories, report

from labhub import runtime
from labhub.hub import start_broker, stop_broker
from labhub.messenger import Messenger, ProducerInfo
from labhub.settings import settings_path
from labhub.transport.curve import CLIENT_KEY, load_key

PORT = 9578
RULES = f'[metrics]\nport = {PORT}\n\n[access.ann]\nconsume = ["*"]\n'
LONG = 15
"""Channels with long metadata, which make a list of about a megabyte."""
LIFE = 120.0
"""No stranger lives longer (in seconds)."""


def half_sent() -> Iterator[None]:
    """S3: 280 half-sent requests to the metrics port, and another one for each that ends."""
    connections: list[socket.socket] = []
    while True:
        connections.append(socket.create_connection(("127.0.0.1", PORT)))
        connections[-1].sendall(b"GET /met")
        if len(connections) > 280:
            connections.pop(0).close()
        yield


def cut_off() -> Iterator[None]:
    """S7: the settings file, emptied and written again and again."""
    path = Path(settings_path())
    while True:
        path.write_text("")
        yield
        path.write_text(RULES)
        time.sleep(0.01)
        yield


@contextmanager
def raw_client() -> Iterator[zmq.Socket[bytes]]:
    """A socket of this user's that reads only when told, and has small buffers."""
    place, key = runtime.find(), load_key(CLIENT_KEY)
    assert place is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        for option, value in ((zmq.RCVHWM, 1), (zmq.RCVBUF, 4096), (zmq.LINGER, 0)):
            client.setsockopt(option, value)
        client.setsockopt(zmq.CURVE_SERVERKEY, place.public_key.encode())
        client.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        client.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        client.connect(place.endpoint)
        yield client


def unread_lists() -> Iterator[None]:
    """S9: 700 large lists, of which none is read; then another connection, that does the same."""
    while True:
        with raw_client() as client:
            for _ in range(700):
                client.send_multipart([b"LIST_REQ", b"{}"])
                yield
            time.sleep(2)


def registered_readers() -> Iterator[None]:
    """S11: 60,000 consumers of one channel, from one key, and again from the first one on."""
    with raw_client() as client:
        client.setsockopt(zmq.RCVHWM, 1000)
        while True:
            for pid in range(60_000):
                body = {"channel_name": "channel.00000", "consumer_pid": pid}
                client.send_multipart([b"CONSUMER_REG_REQ", json.dumps(body).encode()])
                yield


STRANGERS: dict[str, Callable[[], Iterator[None]]] = {
    "S3 half-sent scrapes": half_sent,
    "S7 settings cut off": cut_off,
    "S9 unread lists": unread_lists,
    "S11 readers": registered_readers,
}


def be(name: str) -> None:
    """Be a stranger, in a process of its own, for a while; say so once it is at work."""
    deadline = time.monotonic() + LIFE
    for count, _ in enumerate(STRANGERS[name]()):
        if count == 100:
            print("at work", flush=True)
        if time.monotonic() > deadline:
            return


@contextmanager
def meanwhile(name: str) -> Iterator[None]:
    """Let a stranger be at work."""
    command = [sys.executable, __file__, "--stranger", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        try:
            yield
        finally:
            process.terminate()


def measured(names: list[str], messenger: Messenger, broker: psutil.Process, strangers: list[str]) -> dict[str, float]:
    """Ask while strangers are at work."""
    before = broker.memory_info().rss
    with ExitStack() as stack:
        for name in strangers:
            stack.enter_context(meanwhile(name))
        found = discovery.ask(messenger, names)
        return found | {"grown_MB": (broker.memory_info().rss - before) / 1e6}


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == ["--stranger"]:
        be(sys.argv[2])
        return
    with private_directories():
        Path(settings_path()).write_text(RULES)
        place = start_broker(endpoint="tcp://127.0.0.1:0")
        try:
            with Messenger() as messenger:
                assert messenger.connect(place.endpoint, place.public_key)
                names = [f"channel.{k:05}" for k in range(100)]
                discovery.register(messenger, names)
                for k in range(LONG):
                    info = ProducerInfo("c", 1, bytes(32), 1, {"text": "x" * 60_000})
                    messenger.register_producer(f"a.long.{k}", info).result(30)
                broker = psutil.Process(place.pid)
                cases = {"nobody": [], **{name: [name] for name in STRANGERS}, "all at once": list(STRANGERS)}
                found = {case: measured(names, messenger, broker, who) for case, who in cases.items()}
        finally:
            stop_broker()
    rows = [("meanwhile", *(name.replace("_", " ") for name in found["nobody"]))]
    rows += [(case, *(f"{v:.2f}" for v in figures.values())) for case, figures in found.items()]
    report("strangers", rows, found)


if __name__ == "__main__":
    main()
