"""What joins the hub of this machine with those of others."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import zenoh

from labhub import liveness
from labhub.bound import Bound
from labhub.bridging import clocks, network
from labhub.bridging.exports import Exports
from labhub.bridging.imports import Imports
from labhub.bridging.status import BridgeStatus
from labhub.bridging.wire import Address
from labhub.datablock.config import checked_count
from labhub.datablock.location import segment_directory
from labhub.ending import close_first
from labhub.errors import BridgeError, ClosedError, InvalidArgument
from labhub.hub import Hub, connect
from labhub.names import check_name
from labhub.tasks import Task, words

DIAGNOSIS_INTERVAL = 1.0
"""How often endpoints that are not connected are tried, to find out why (in seconds)."""
PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]+", re.ASCII)


class Bridge(Bound):
    """Channels between this machine's hub and others. Made by `labhub.bridge`, which explains the parameters.

    It connects, and connects again, by itself. Closing it, leaving its ``with`` block, or the end of the program ends
    the imported channels here and withdraws the exported ones from the others.

    Attributes
    ----------
    site : str
        What this machine is called by the others.
    """

    def __init__(
        self,
        exports: Sequence[str],
        imports: Sequence[str],
        *,
        connect: Sequence[str],
        listen: Sequence[str],
        config: str | Path | None,
        site: str | None,
        hub: Hub | None,
        reexport: bool,
        buffer_nbytes: int,
        max_channels: int,
        max_nbytes: int,
    ) -> None:
        self.site = check_name(_host_name() if site is None else site, "site")
        for pattern in exports:
            _check_pattern(pattern, 1)
        for pattern in imports:
            _check_pattern(pattern, 2)
        limits = {"max_channels": max_channels, "max_nbytes": max_nbytes}
        for name, limit in {"buffer_nbytes": buffer_nbytes, **limits}.items():
            checked_count(name, limit)
        self._config = network.configuration(connect, listen, config)
        self._called = network.called(self._config)
        self._hub = _connected() if hub is None else hub
        self._closed = threading.Event()
        self._reasons: dict[str, str] = {}
        identity = _identity(self._hub)
        with contextlib.ExitStack() as stack:
            self._session = stack.enter_context(network.open_session(self._config))
            self._clock = clocks.serve(self._session, Address(self.site, identity, "").clock)
            self._imports = Imports(self._hub, self._session, identity, imports, **limits)
            stack.callback(self._imports.close)
            self._exports = Exports(
                self._hub, self._session, self.site, identity, exports, reexport=reexport, buffer_nbytes=buffer_nbytes
            )
            stack.callback(self._exports.close)
            self._stack = stack.pop_all()
        close_first(self)
        self._doctor = Task(self._diagnose, "bridge diagnosis")
        self._doctor.start()

    def _diagnose(self) -> None:
        """Find out, now and then, why nobody answers."""
        while not self._closed.is_set():
            with contextlib.suppress(zenoh.ZError):
                alone = not network.n_peers(self._session)
                self._reasons = {e: self._reason(e) for e in self._called} if alone else {}
            self._closed.wait(DIAGNOSIS_INTERVAL)

    def _reason(self, endpoint: str) -> str:
        try:
            return network.diagnose(endpoint, self._config)
        except Exception as error:  # noqa: BLE001  # around one endpoint: what is wrong with it is the reason
            return words(error)

    @property
    def status(self) -> BridgeStatus:
        """How it does: whom it is connected with, and each channel; it is there at once."""
        if self._closed.is_set():
            return BridgeStatus(self.site, "closed")
        n_peers = network.n_peers(self._session)
        alone = "not connected" if self._called else "listening"
        problems = tuple(f"{e}: {r or 'not connected'}" for e, r in self._reasons.items()) if not n_peers else ()
        if self._doctor.error is not None:
            problems += (f"diagnosis: {words(self._doctor.error)}",)
        return BridgeStatus(
            self.site,
            "connected" if n_peers else alone,
            n_peers,
            (*problems, *self._exports.problems, *self._imports.problems),
            self._exports.status,
            self._imports.status,
        )

    def wait_connected(self, timeout: float = 5.0) -> None:
        """Wait until another machine is connected.

        Raises
        ------
        BridgeError
            None is within `timeout` seconds; the message says why, as far as that can be found out.
        ClosedError
        """
        deadline = time.monotonic() + timeout
        while not self._closed.is_set():
            status = self.status
            if status.state == "connected":
                return
            if time.monotonic() >= deadline:
                why = "; ".join(status.problems) or "nobody has called"
                raise BridgeError(
                    f"no other machine is connected after {timeout:g} s: {why}", endpoint=next(iter(self._called), "")
                )
            self._closed.wait(0.02)
        raise ClosedError("this bridge was closed; labhub.bridge() makes another one")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed.is_set()

    def close(self) -> None:
        """End it. Twice is harmless."""
        if not self._closed.is_set():
            self._closed.set()
            self._stack.close()
            self._doctor.wait(network.PROBE_TIMEOUT * 2)

    def _instead(self) -> str:
        return "in the other process, read the channels that it brings, or call labhub.bridge"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bridge({self.site!r}, {self.status.state})"


def _connected() -> Hub:
    return connect()


def _host_name() -> str:
    """The host's name, as far as it can name a site."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname().split(".")[0]).lstrip("-.") or "host"


def _identity(hub: Hub) -> str:
    """Return what tells a hub from every other one, and stays the same when bridge or broker are restarted."""
    place = f"{liveness.boot_id()} {socket.gethostname()} {segment_directory(hub.name)}"
    return hashlib.blake2b(place.encode(), digest_size=6).hexdigest()


def _check_pattern(pattern: object, parts: int) -> None:
    words = pattern.split("/") if isinstance(pattern, str) else []
    if not 1 <= len(words) <= parts or not all(map(PATTERN.fullmatch, words)):
        form = "'camera.*'" if parts == 1 else "'site/camera.*' or 'camera.*'"
        raise InvalidArgument(f"{pattern!r} is no pattern of channels; write {form}")
