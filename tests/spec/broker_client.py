"""A client of the broker, written from docs/spec/protocol.md with nothing but pyzmq. No labhub in here, on purpose."""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import zmq

MARK = b"C"


class Refused(Exception):
    """The broker answered ``ERROR``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def read_key(directory: str | Path, name: str = "client.key") -> tuple[str, str]:
    """Read a key pair; refuse one that others can read."""
    fd = os.open(Path(directory) / name, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd) as file:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(name)
        public, secret = file.read().split()
    return public, secret


def find_broker(directory: str | Path, name: str = "default") -> dict[str, Any]:
    """Read the connection file of a broker."""
    found: dict[str, Any] = json.loads((Path(directory) / f"broker-{name}.json").read_text())
    if found["boot_id"] != boot_id():
        raise LookupError("the file is of another boot")
    return found


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def place_of(directory: str) -> dict[str, Any]:
    """Return the part of the metadata that says where a segment is."""
    status = os.stat(directory)
    return {"boot_id": boot_id(), "shm_dir": directory, "shm_dev": status.st_dev, "shm_ino": status.st_ino}


class BrokerClient:
    """One connection to a broker. Without keys it speaks to a broker without CURVE."""

    def __init__(
        self, endpoint: str, server_key: str = "", key: tuple[str, str] = ("", ""), mark: bool = False
    ) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        if server_key:
            self._socket.curve_serverkey = server_key.encode()
            self._socket.curve_publickey, self._socket.curve_secretkey = (half.encode() for half in key)
        self._socket.connect(endpoint)
        self._prefix = [MARK] if mark else []
        self._ids = itertools.count(1)

    def ask(self, type_: str, **fields: Any) -> dict[str, Any]:
        """Ask, and return the body of the reply to exactly this request."""
        correlation = f"spec-{next(self._ids)}"
        body = json.dumps({**fields, "correlation_id": correlation})
        self.send(type_.encode(), body.encode())
        while True:
            answer, reply = self.receive()
            if reply.get("correlation_id") == correlation:
                break
        if answer == "ERROR":
            raise Refused(reply["error_code"], reply["message"])
        assert answer == type_.replace("_REQ", "_ACK")
        assert reply["status"] == "success"
        return reply

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart([*self._prefix, *frames])

    def receive(self, seconds: float = 5.0) -> tuple[str, dict[str, Any]]:
        """Return type and body of the next message.

        Raises
        ------
        TimeoutError
            If none comes.
        """
        if not self._socket.poll(round(seconds * 1000)):
            raise TimeoutError
        *prefix, type_, body = self._socket.recv_multipart()
        assert prefix == self._prefix
        return type_.decode("ascii"), json.loads(body)

    def close(self) -> None:
        self._context.destroy(0)

    def __enter__(self) -> BrokerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
