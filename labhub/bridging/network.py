"""The Zenoh session of a bridge: opened from endpoints and Zenoh's own configuration, and asked how it does."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zenoh

from labhub.bridging.wire import MAX_OFFER_NBYTES, MAX_REFUSAL_NBYTES
from labhub.errors import BridgeError, InvalidArgument, LabHubError, ProtocolError
from labhub.tasks import contained
from labhub.telling import Advice
from labhub.words import visible

PROBE_TIMEOUT = 2.0
"""How long an endpoint that is not connected is tried, to find out why (in seconds)."""
QUERY_TIMEOUT = 3.0
"""How long another bridge may take to answer (in seconds)."""
TX_BATCHES = 16
"""Batches of 64 KiB that may wait for a connection, the most that Zenoh allows. With its default of two, each piece of
a large slot waits until one thread has woken the other (docs/bridge.md has figures)."""


def _check_endpoint(endpoint: str) -> None:
    """Refuse the two ways of writing an endpoint that Zenoh has no plain words for."""
    kind, found, rest = endpoint.partition("://")
    if found:
        raise InvalidArgument(f"{endpoint!r} is no endpoint of a bridge; write '{kind}/{rest}', as in 'tcp/host:7447'")
    kind, _, rest = endpoint.partition("/")
    if kind in ("tcp", "tls", "quic", "udp") and not re.search(r":\d+($|[?#])", rest):
        raise InvalidArgument(f"{endpoint!r} names no port; write '{kind}/host:port', as in 'tcp/host:7447'")


def configuration(connect: Sequence[str], listen: Sequence[str], path: str | Path | None) -> zenoh.Config:
    """Return Zenoh's configuration: that of the file, or one that talks to nobody who is not named.

    Raises
    ------
    InvalidArgument
        There is nobody to talk to, or the file or an endpoint cannot be understood.
    """
    if not (connect or listen or path):
        raise InvalidArgument(
            "a bridge needs to know whom to call or where to listen",
            advice=Advice(
                ": give connect='tcp/host:7447', listen='tcp/0.0.0.0:7447', or a Zenoh configuration file",
                shell=": give --connect tcp/host:7447, --listen tcp/0.0.0.0:7447, or --config FILE",
            ),
        )
    for endpoint in (*connect, *listen):
        _check_endpoint(endpoint)
    try:
        config = zenoh.Config() if path is None else zenoh.Config.from_file(path)
        if path is None:  # no discovery, and no port open on every interface, unless somebody asks for it in a file
            config.insert_json5("scouting/multicast/enabled", "false")
            config.insert_json5("listen/endpoints", "[]")
            # It would serve two bridges on one machine only, from files in /dev/shm that outlive a killed process.
            config.insert_json5("transport/shared_memory/enabled", "false")
            config.insert_json5("transport/link/tx/queue/size/data", str(TX_BATCHES))
        for side, endpoints in (("connect", connect), ("listen", listen)):
            if endpoints:
                config.insert_json5(f"{side}/endpoints", json.dumps(list(endpoints)))
        # A machine that is away now is called until it is there.
        config.insert_json5("connect/timeout_ms", "-1")
        config.insert_json5("connect/exit_on_failure", "false")
        config.insert_json5(
            "connect/retry", '{"period_init_ms": 200, "period_max_ms": 2000, "period_increase_factor": 2}'
        )
    except (zenoh.ZError, ValueError, OSError) as error:
        raise InvalidArgument(f"Zenoh does not take this configuration: {_words(error)}") from None
    return config


def open_session(config: zenoh.Config) -> zenoh.Session:
    """Open the network.

    Raises
    ------
    BridgeError
        It cannot be opened.
    """
    try:
        return zenoh.open(config)
    except zenoh.ZError as error:
        raise BridgeError(f"the network cannot be opened: {_words(error)}") from None


def called(config: zenoh.Config) -> tuple[str, ...]:
    """Return the endpoints that a configuration calls."""
    found = json.loads(config.get_json("connect/endpoints"))
    if isinstance(found, dict):  # Zenoh lets them differ by mode
        found = [endpoint for several in found.values() for endpoint in several]
    return tuple(found)


def n_peers(session: zenoh.Session) -> int:
    """Return how many machines are connected."""
    return len({str(transport.zid) for transport in session.info.transports()})


def query(session: zenoh.Session, key: str, parameters: dict[str, str] | None = None) -> bytes | None:
    """Ask whoever answers to a key; None if nobody does in time.

    Raises
    ------
    BridgeError
        There are only refusals; the message is what the first of them says.
    ProtocolError
        The answer is longer than any labhub's.
    """
    selector = zenoh.Selector(key, parameters or {})
    refusal = ""
    for reply in session.get(selector, timeout=QUERY_TIMEOUT):
        if reply.ok is not None:
            return limited(reply.ok.payload)
        if reply.err is not None:
            refusal = refusal or refused(reply.err.payload)
    if refusal:
        raise BridgeError(refusal)
    return None


def ask(
    session: zenoh.Session, key: str, parameters: dict[str, str], answered: Callable[[bytes | LabHubError | None], None]
) -> None:
    """Ask as `query` does, and do not wait.

    Parameters
    ----------
    answered : callable
        Called in a thread of Zenoh's, so it must not wait: with an answer, with an error of `query`'s, or with None if
        nobody answers in time. What it is called with first counts.
    """
    refusals: list[LabHubError] = []

    def heard(reply: zenoh.Reply) -> None:
        with contained("bridge", key):
            if reply.ok is not None:
                try:
                    answered(limited(reply.ok.payload))
                except ProtocolError as error:
                    answered(error)
            elif reply.err is not None and not refusals:
                refusals.append(BridgeError(refused(reply.err.payload)))

    def over() -> None:
        with contained("bridge", key):
            answered(refusals[0] if refusals else None)

    handler = zenoh.handlers.Callback(heard, over, indirect=False)
    session.get(zenoh.Selector(key, parameters), handler, timeout=QUERY_TIMEOUT)


def nbytes_of(sample: zenoh.Sample) -> int:
    """Return what a message takes while it waits (in bytes)."""
    return len(sample.payload) + (0 if sample.attachment is None else len(sample.attachment))


def limited(payload: zenoh.ZBytes) -> bytes:
    """Return what somebody has answered, unless it is longer than any answer is."""
    if len(payload) > MAX_OFFER_NBYTES:
        raise ProtocolError(f"an answer of {len(payload)} bytes; no labhub sends more than {MAX_OFFER_NBYTES}")
    return bytes(payload)


def refused(payload: zenoh.ZBytes) -> str:
    """Return the words of a refusal, if they are not too many."""
    if len(payload) > MAX_OFFER_NBYTES:
        return "more than this labhub reads"
    return visible(bytes(payload)[:MAX_REFUSAL_NBYTES].decode(errors="replace")) or "no"


def diagnose(endpoint: str, config: zenoh.Config) -> str:
    """Say why an endpoint cannot be reached, as far as a connection of our own can tell; empty if it can.

    Zenoh goes on trying, and does not tell why in vain.
    """
    protocol, _, rest = endpoint.partition("/")
    host, _, port = rest.split("?")[0].split("#")[0].rpartition(":")
    if protocol not in ("tcp", "tls") or not port.isdecimal():
        return "not connected"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_TIMEOUT) as plain:
            if protocol == "tls":
                with _tls(config).wrap_socket(plain, server_hostname=host.strip("[]")) as secure:
                    secure.settimeout(PROBE_TIMEOUT / 4)
                    secure.recv(1)  # a refusal of our own certificate comes after the handshake
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except TimeoutError as error:
        return "" if protocol == "tls" and "read" in str(error) else "no answer"
    except ssl.SSLError as error:
        return f"TLS fails: {(error.reason or str(error)).replace('_', ' ').lower()}"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def _tls(config: zenoh.Config) -> ssl.SSLContext:
    def setting(name: str) -> Any:
        return json.loads(config.get_json(f"transport/link/tls/{name}"))

    context = ssl.create_default_context(cafile=setting("root_ca_certificate"))
    context.check_hostname = setting("verify_name_on_connect") is not False
    if certificate := setting("connect_certificate"):
        context.load_cert_chain(certificate, setting("connect_private_key"))
    return context


def _words(error: Exception) -> str:
    """What went wrong, without where in Zenoh's source that was noticed."""
    return str(error).split(" at /")[0].strip()
