"""`connect`, and the hubs of this process: one for each name, closed when the process ends."""

from __future__ import annotations

import os
import threading

from labhub.arguments import checked_flag, checked_text
from labhub.datablock.config import nanoseconds
from labhub.ending import at_exit
from labhub.errors import BrokerUnreachable, InvalidArgument
from labhub.hub.hub import Hub
from labhub.hub.local_broker import broker_place, running_broker, start_broker
from labhub.messenger import Messenger
from labhub.names import check_name
from labhub.transport.curve import check_public_key
from labhub.words import quoted

_open: dict[str, Hub] = {}
_open_lock = threading.Lock()


def connect(
    name: str = "default",
    start: bool = False,
    endpoint: str | None = None,
    public_key: str | None = None,
    timeout: float = 5.0,
) -> Hub:
    """Connect to a broker.

    Parameters
    ----------
    name : str
        Its name: the running broker is found by its connection file.
    start : bool
        Start it in the background if it does not run. It outlives this process.
    endpoint, public_key : str, optional
        Where it listens and who it is, both as it prints them at its start; instead of the connection file.
    timeout : float
        How long to wait for its answers, now and later (in seconds).

    Returns
    -------
    Hub
        The same one for the same name, while it is open.

    Raises
    ------
    BrokerUnreachable
        No broker answers; the message says how to start one.
    AuthenticationError
        The broker has another key, or refuses this user's.
    InvalidArgument
        Only one of endpoint and key is given, or the open hub of this name is connected elsewhere.

    Examples
    --------
    >>> import labhub
    >>> hub = labhub.connect()
    >>> hub
    Hub('default', connected)
    """
    check_name(name, "broker")
    checked_flag("start", start)
    if endpoint is not None:
        checked_text("endpoint", endpoint)
    if public_key is not None:
        check_public_key(public_key)
    if (endpoint is None) != (public_key is None):
        raise InvalidArgument("endpoint and public_key go together; give both, or neither to find the broker by name")
    if timeout is None:
        raise InvalidArgument("timeout is a number of seconds; a broker that never answers is not waited for for ever")
    nanoseconds(timeout)
    if start and endpoint is not None:
        raise InvalidArgument("start=True starts a broker on this machine, found by its name; leave out the endpoint")
    given = None if endpoint is None or public_key is None else (endpoint, public_key)
    with _open_lock:
        hub = _open.get(name)
        if hub is None or not hub.usable:
            hub = _open[name] = Hub(name, _connected(name, start, given, timeout), given, timeout)
        elif given not in (None, hub.given):
            raise InvalidArgument(f"the hub {name!r} is open and connected elsewhere; close it, or name this one")
        elif start:
            start_broker(name)
        return hub


def _connected(name: str, start: bool, given: tuple[str, str] | None, timeout: float) -> Messenger:
    if given is None:
        found = start_broker(name) if start else running_broker(name)
        place = (found.endpoint, found.public_key)
    else:
        place = given
    messenger = Messenger()
    if not messenger.connect(*place, timeout=timeout, resolve=None if given else lambda: broker_place(name)):
        raise BrokerUnreachable(
            f"the broker {name!r} does not answer at {place[0]} within {timeout:g} s; is it still running? "
            "`labhub broker status` shows what is known of it",
            endpoint=place[0],
        )
    return messenger


def given_or_default(hub: object) -> Hub:
    """Return a hub that was passed as an argument, or that of `connect` for None.

    Raises
    ------
    InvalidArgument
        It is something else than a hub.
    """
    if hub is None:
        return connect()
    if isinstance(hub, Hub):
        return hub
    raise InvalidArgument(f"hub is what labhub.connect() returns, not {quoted(hub)}")


def open_hubs() -> list[Hub]:
    """Return the open hubs of this process."""
    return [hub for hub in list(_open.values()) if hub.usable]


@at_exit
def _close_all() -> None:
    for hub in open_hubs():
        hub.close()


def _forget_parent() -> None:
    """In a forked child: its parent's hubs are not its own, and a thread that is not there may have held the lock."""
    global _open_lock
    _open_lock = threading.Lock()
    _open.clear()


os.register_at_fork(after_in_child=_forget_parent)
