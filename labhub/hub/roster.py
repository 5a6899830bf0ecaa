"""Which channels a watch knows of, and what is news to it. No I/O: lists, events and the time go in, news come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from labhub.hub.channels import ChannelInfo
from labhub.protocol.messages import HEARTBEAT_INTERVAL, ChannelEntry, Event, EventKind
from labhub.tasks import contained

RETURN_GRACE = 2.5 * HEARTBEAT_INTERVAL
"""How long after its restart a broker may not know a channel yet, because its producer has not told it again (in
seconds)."""

Kind = Literal["appeared", "gone", "schema", "producer_died", "checksum_error"]


@dataclass(frozen=True, repr=False)
class ChannelEvent:
    """Something happened to a channel.

    Attributes
    ----------
    kind : {"appeared", "gone", "schema", "producer_died", "checksum_error"}
        ``"appeared"``: it is there; if it was before, it has another producer now, or the one that was told dead is
        back: `detail` says which, and whether the segment was taken over. ``"gone"``: it is not there any more.
        ``"schema"``: it was there before, and has another schema now. ``"producer_died"``: it waits for a takeover, and
        will be gone soon without one. ``"checksum_error"``: a reader found a slot that does not match its checksum;
        `detail` names the seq.
    channel : str
        Its name.
    info : ChannelInfo or None
        What the broker knows of it, with ``"appeared"`` and ``"schema"``.
    pid : int
        Process of its producer.
    detail : str
        More words, or none.
    """

    kind: Kind
    channel: str
    info: ChannelInfo | None = None
    pid: int = 0
    detail: str = ""

    def __repr__(self) -> str:
        # Without pids, which differ from run to run; a detail may name some.
        return f"ChannelEvent({self.kind!r}, {self.channel!r})"


@dataclass
class _Known:
    entry: ChannelEntry
    dead: bool = False
    missing_until: float | None = None


class Roster:
    """The channels of one watch."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._version = -1

    def compare(
        self, entries: Iterable[ChannelEntry], version: int, now: float, *, anew: bool, since: Iterable[Event] = ()
    ) -> list[ChannelEvent]:
        """Take a whole list; return what has changed.

        With `anew` the broker may have been restarted: its versions begin again, and a channel that it does not know is
        given `RETURN_GRACE` seconds to come back. `since` are the events between what was lost and the list: what came
        and went meanwhile is told, too.
        """
        if anew:
            self._version = -1
        news = []
        for event in since:
            if event.version <= version and event.event is not EventKind.CHECKSUM_ERROR:
                news += self.happened(event)
        self._version = version
        there = {entry.channel_name: entry for entry in entries}
        for name in [name for name in self._known if name not in there]:
            known = self._known[name]
            if anew and known.missing_until is None:
                known.missing_until = now + RETURN_GRACE
            elif known.missing_until is None:
                news += self._gone(name)
        for entry in there.values():
            with contained("watch", entry.channel_name):
                news += self._registered(entry)
                news += self._judged(entry)
        return news

    def happened(self, event: Event) -> list[ChannelEvent]:
        """Take an event; return what is news. What the last list had in it already is none."""
        name = event.channel_name
        if event.event is EventKind.CHECKSUM_ERROR:
            return [ChannelEvent("checksum_error", name, None, event.producer_pid, event.detail)]
        if event.version <= self._version:
            return []
        self._version = event.version
        match event.event:
            case EventKind.GONE:
                return self._gone(name, event.detail)
            case EventKind.PRODUCER_DIED:
                return self._died(name)
            case _ if event.channel is not None:
                return self._registered(event.channel, event.detail)
        return []

    def expire(self, now: float) -> list[ChannelEvent]:
        """Let the time pass: what a restarted broker was not told of in time is gone."""
        late = [n for n, k in self._known.items() if k.missing_until is not None and k.missing_until <= now]
        return [
            event for name in late for event in self._gone(name, "the broker was restarted, and it did not come back")
        ]

    @property
    def due(self) -> float | None:
        """When `expire` will have something to say; None for never."""
        return min((k.missing_until for k in self._known.values() if k.missing_until is not None), default=None)

    def _registered(self, entry: ChannelEntry, detail: str = "") -> list[ChannelEvent]:
        known = self._known.get(entry.channel_name)
        kind, why = ("appeared", "") if known is None else _change(known.entry, entry)
        if known is not None and kind is None and known.dead and entry.liveness != "dead":
            kind, why = "appeared", f"its producer, process {entry.producer_pid}, is back"
        if known is None or kind is not None:
            self._known[entry.channel_name] = _Known(entry)
        else:
            known.entry, known.missing_until = entry, None
        if kind is None:
            return []
        info = ChannelInfo.from_entry(entry)
        return [ChannelEvent(kind, entry.channel_name, info, entry.producer_pid, detail or why)]

    def _judged(self, entry: ChannelEntry) -> list[ChannelEvent]:
        return self._died(entry.channel_name) if entry.liveness == "dead" else []

    def _died(self, name: str) -> list[ChannelEvent]:
        known = self._known.get(name)
        if known is None or known.dead:
            return []
        known.dead = True
        return [ChannelEvent("producer_died", name, None, known.entry.producer_pid)]

    def _gone(self, name: str, detail: str = "") -> list[ChannelEvent]:
        known = self._known.pop(name, None)
        return [] if known is None else [ChannelEvent("gone", name, None, known.entry.producer_pid, detail)]


def _change(old: ChannelEntry, new: ChannelEntry) -> tuple[Literal["appeared", "schema"] | None, str]:
    """What kind of news a registration is to somebody who knew an earlier one, and why; None for none."""
    if _declared(old) != _declared(new):
        return "schema", f"replaces process {old.producer_pid}" if _owner(old) != _owner(new) else ""
    if _owner(old) == _owner(new):
        return None, ""
    instance = new.metadata.get("instance_id")
    if instance is not None and instance == old.metadata.get("instance_id"):
        return "appeared", f"taken over from process {old.producer_pid}"
    return "appeared", f"replaces process {old.producer_pid}"


def _declared(entry: ChannelEntry) -> tuple[object, ...]:
    return entry.schema_hash, entry.schema_version, entry.metadata.get("schema")


def _owner(entry: ChannelEntry) -> tuple[object, ...]:
    return entry.producer_pid, entry.shm_name, entry.metadata.get("instance_id"), entry.metadata.get("epoch")
