"""Who wants to hear of which channels, and for how much longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from labhub.errors import ProtocolError
from labhub.protocol import codec
from labhub.protocol.access import Access
from labhub.protocol.messages import HEARTBEAT_EXPIRY, ErrorCode, Event, Right, WatchAck, WatchReq
from labhub.protocol.peer import Outgoing, Peer


@dataclass
class _Watch:
    peer: Peer
    pattern: str
    marked: bool
    heard_at: float
    next_serial: int = 0


class Watches:
    """The watches of one broker. A watch belongs to one connection and has a name there.

    Parameters
    ----------
    allowed : callable
        Whether a client key is on the allow-list now. A watch of a key that is not ends before it hears another word.
    access : Access
        Which channels a key may hear of; asked for every event.
    quota : int
        How many watches one client key may have.
    """

    def __init__(self, allowed: Callable[[str], bool], access: Access, quota: int) -> None:
        self._allowed = allowed
        self._access = access
        self._quota = quota
        self._by_connection: dict[bytes, dict[str, _Watch]] = {}
        self._per_key: Counter[str] = Counter()

    def meet(self, peer: Peer) -> None:
        """End the watches of another client that had this routing id before: what they hear would reach this one."""
        for name, watch in list(self._by_connection.get(peer.routing_id, {}).items()):
            if watch.peer != peer:
                self._forget(peer.routing_id, name)

    def renew(self, peer: Peer, request: WatchReq, now: float, *, marked: bool) -> WatchAck:
        """Renew a watch, or begin it if this connection has none of that name and pattern.

        Raises
        ------
        ProtocolError
            If this client key has as many as it may.
        """
        watch = self._by_connection.get(peer.routing_id, {}).get(request.watch_id)
        renewed = watch is not None and watch.peer == peer and watch.pattern == request.pattern
        if watch is None or not renewed:
            self._forget(peer.routing_id, request.watch_id)
            if self._per_key[peer.key] >= self._quota:
                raise ProtocolError(
                    f"one client key may have {self._quota} watches; close some first",
                    code=ErrorCode.QUOTA_EXCEEDED.value,
                )
            watch = _Watch(peer, request.pattern, marked, now)
            self._by_connection.setdefault(peer.routing_id, {})[request.watch_id] = watch
            self._per_key[peer.key] += 1
        watch.heard_at = now
        return WatchAck(next_serial=watch.next_serial, renewed=renewed)

    def end(self, peer: Peer, watch_id: str) -> None:
        """End a watch, if this connection has one of that name."""
        self._forget(peer.routing_id, watch_id)

    def tick(self, now: float) -> None:
        """End the watches that were not renewed, and those of revoked keys."""
        for name, watch in self._all():
            if now - watch.heard_at > HEARTBEAT_EXPIRY or not self._allowed(watch.peer.key):
                self._forget(watch.peer.routing_id, name)

    def restart(self) -> None:
        """End all watches, so that each begins anew when it is renewed, and its client lists what it may see now."""
        for name, watch in self._all():
            self._forget(watch.peer.routing_id, name)

    def tell(self, event: Event) -> list[Outgoing]:
        """Address an event to every watch whose pattern matches; its watch id and serial are filled in here."""
        sent = []
        for name, watch in self._all():
            if not fnmatchcase(event.channel_name, watch.pattern):
                continue
            if not self._allowed(watch.peer.key):
                self._forget(watch.peer.routing_id, name)
                continue
            if not self._access.may(watch.peer.key, Right.CONSUME, event.channel_name):
                continue
            mine = msgspec.structs.replace(event, watch_id=name, serial=watch.next_serial)
            watch.next_serial += 1
            sent.append(Outgoing(watch.peer.routing_id, codec.encode(mine, marked=watch.marked), watch.peer.key))
        return sent

    def _all(self) -> list[tuple[str, _Watch]]:
        return [item for watches in self._by_connection.values() for item in watches.items()]

    def _forget(self, routing_id: bytes, name: str) -> None:
        watches = self._by_connection.get(routing_id, {})
        watch = watches.pop(name, None)
        if watch is None:
            return
        if not watches:
            del self._by_connection[routing_id]
        self._per_key[watch.peer.key] -= 1
        if not self._per_key[watch.peer.key]:
            del self._per_key[watch.peer.key]

    def __len__(self) -> int:
        return sum(map(len, self._by_connection.values()))
