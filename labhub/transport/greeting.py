"""Whether anything says a word at an endpoint: who has no open file left accepts no connection, and is silent."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from labhub.exhausted import raise_if_exhausted

PATIENCE = 0.5
"""How long a greeting may take (in seconds); who accepts a connection greets at once."""


def greets(endpoint: str, patience: float = PATIENCE) -> bool:
    """Whether somebody at a ``tcp://`` endpoint accepts a new connection and says a first byte; True elsewhere.

    ZeroMQ's peers greet each other before any key matters. The kernel alone completes a TCP connection to a process
    that is stopped, or has no open file left to accept it.

    Raises
    ------
    SegmentSpaceError
        If this process has no open file left to find out.
    """
    place = urlsplit(endpoint)
    if place.scheme != "tcp" or not place.hostname or not place.port:
        return True
    try:
        with socket.create_connection((place.hostname, place.port), patience) as connection:
            return bool(connection.recv(1))
    except OSError as error:
        raise_if_exhausted(error, f"cannot ask who is at {endpoint}")
        return False
