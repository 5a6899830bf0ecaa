"""The other side: a broker in a process of its own, and whoever speaks to it without labhub's own client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import zmq

from labhub.hub import start_broker, stop_broker
from labhub.runtime import ConnectionFile
from labhub.transport.curve import CLIENT_KEY, KeyPair, data_directory, load_key

ANY_PORT = "tcp://127.0.0.1:0"
WINDOW = 500  # messages without a reply, below the high-water mark of either side


@contextmanager
def broker_process(endpoint: str = ANY_PORT) -> Iterator[ConnectionFile]:
    """Run a broker, and expect that nothing in its log is a traceback."""
    place = start_broker(endpoint=endpoint)
    try:
        yield place
    finally:
        stop_broker()
        log = (data_directory() / f"broker-{place.name}.log").read_text(errors="replace")
        assert "Traceback" not in log, log


class RawPeer:
    """A bare DEALER with a key: it sends what it likes, and counts what comes back."""

    def __init__(self, place: ConnectionFile, key: KeyPair | None = None) -> None:
        key = key or load_key(CLIENT_KEY)
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, place.public_key.encode())
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
        self.socket.connect(place.endpoint)
        self._unanswered = 0

    def ask(self, frames: Sequence[bytes], seconds: float = 30.0) -> list[bytes] | None:
        """Send one message; its reply, or None if there is none in time."""
        self.socket.send_multipart(frames)
        while self.socket.poll(round(seconds * 1000)):
            reply = self.socket.recv_multipart()
            if reply[-2] != b"EVENT":
                return reply
        return None

    def flood(self, frames: Sequence[bytes]) -> list[list[bytes]]:
        """Send one message, as many as may be under way before the replies are waited for; those that were."""
        self.socket.send_multipart(frames)
        self._unanswered += 1
        return self.settle() if self._unanswered == WINDOW else []

    def settle(self) -> list[list[bytes]]:
        """Wait for the reply of each message of the flood. An event, which was asked for by chance, is none."""
        replies = []
        while self._unanswered:
            assert self.socket.poll(30_000), f"{self._unanswered} messages were not answered"
            reply = self.socket.recv_multipart()
            if reply[-2] != b"EVENT":
                replies.append(reply)
                self._unanswered -= 1
        return replies

    def close(self) -> None:
        self._context.destroy(0)

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tree(*roots: Path) -> set[str]:
    """Everything that is below some directories."""
    return {os.path.join(at, name) for root in roots for at, within, files in os.walk(root) for name in within + files}
