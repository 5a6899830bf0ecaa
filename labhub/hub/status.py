"""How a hub does, seen from this process: nobody is asked, so it is there at once, whatever the broker does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from labhub.datablock.consumer import Mode
from labhub.errors import LabHubError
from labhub.hub.consumers import Consumer
from labhub.hub.producers import Producer
from labhub.messenger import Status
from labhub.tables import html_facts, html_table, text_facts
from labhub.words import age, one_line, size


@dataclass(frozen=True)
class ProducerStatus:
    """How one of the hub's own producers does.

    Attributes
    ----------
    channel : str
        Its name.
    registered : bool
        Whether it is kept registered with the broker.
    written : int
        Slots of this and earlier producers of the segment.
    waits, waited_s : int, float
        How often writes waited for lossless readers (back-pressure), and for how long altogether (in seconds).
    timeouts, evictions : int
        Writes that waited in vain, and readers that were evicted for it.
    renewed : int
        How often its file was removed under it, and it went on in a new segment.
    trouble : str
        Why the counters cannot be read, or no new segment can be had, if so; else empty.
    """

    channel: str
    registered: bool
    written: int = 0
    waits: int = 0
    waited_s: float = 0.0
    timeouts: int = 0
    evictions: int = 0
    renewed: int = 0
    trouble: str = ""

    @classmethod
    def of(cls, producer: Producer, *, registered: bool) -> Self:
        """Look at a producer."""
        succession = producer.succession
        if succession is not None and succession.trouble:
            return cls(producer.channel, registered, trouble=f"its file was removed, and {succession.trouble}")
        try:
            counters = producer.stats()
        except LabHubError as error:
            return cls(producer.channel, registered, trouble=one_line(error))
        if not counters:  # its schema is left to the first write
            return cls(producer.channel, registered)
        return cls(
            producer.channel,
            registered,
            written=counters["written"],
            waits=counters["blocked"],
            waited_s=counters["blocked_ns"] / 1e9,
            timeouts=counters["timeouts"],
            evictions=counters["evictions"],
            renewed=0 if succession is None else succession.times,
        )


@dataclass(frozen=True)
class ConsumerStatus:
    """How one of the hub's own consumers does.

    Attributes
    ----------
    channel : str
        What it reads.
    mode : {"stream", "latest", "lossless"}
    lag, lost, corrupt : int
        Slots that it has still to read, that it lost, and that did not match their checksum. A lossless consumer has
        lost some only if it was evicted.
    producer_alive : bool
        Whether a living process holds the producer's lock.
    trouble : str
        Why the numbers cannot be read, if so; else empty.
    """

    channel: str
    mode: Mode
    lag: int
    lost: int
    corrupt: int
    producer_alive: bool
    trouble: str = ""

    @classmethod
    def of(cls, consumer: Consumer) -> Self:
        """Look at a consumer."""
        try:
            numbers = consumer.lag, consumer.lost, consumer.corrupt, consumer.producer_alive
        except LabHubError as error:  # closed by another thread just now, say
            return cls(consumer.channel, consumer.mode, 0, 0, 0, False, str(error))
        return cls(consumer.channel, consumer.mode, *numbers)


@dataclass(frozen=True, eq=False, repr=False)
class HubStatus(str):
    """How a hub does. It is one word with facts behind it, as `http.HTTPStatus` is a number with a phrase.

    So ``hub.status == "connected"`` is the question that most programs ask. Data flows in any case.

    Attributes
    ----------
    word : {"connected", "connecting", "disconnected", "unauthorized"}
        The status itself.
    endpoint : str
        Where the broker is, or was; empty for a hub that was closed.
    since_s : float
        For how long the word has been true (in seconds).
    reconnects : int
        How often the broker was reached again after it was away.
    producers : tuple of ProducerStatus
        The hub's own ones.
    consumers : tuple of ConsumerStatus
        The hub's own ones.
    rejected : mapping of str to str
        Why the broker refused channels (a quota, another owner, another schema), by their names.
    free_nbytes : int
        Free space where segments go (in bytes).
    settings_error : str
        Why the settings file of a broker on this machine is not believed, so that older settings hold; else empty.
    error : str
        What has ended the hub's own thread, which speaks to the broker, or what failed in it last; else empty.
    """

    word: Status
    endpoint: str = ""
    since_s: float = 0.0
    reconnects: int = 0
    producers: tuple[ProducerStatus, ...] = ()
    consumers: tuple[ConsumerStatus, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)
    free_nbytes: int = 0
    settings_error: str = ""
    error: str = ""

    def __new__(cls, word: Status, *_facts: object, **_more: object) -> Self:
        """Make the word; the facts are the dataclass's."""
        return super().__new__(cls, word)

    @property
    def lost(self) -> int:
        """Slots that its consumers lost, altogether."""
        return sum(c.lost for c in self.consumers)

    @property
    def corrupt(self) -> int:
        """Slots that did not match their checksum, altogether."""
        return sum(c.corrupt for c in self.consumers)

    @property
    def evictions(self) -> int:
        """Readers that its producers evicted, altogether."""
        return sum(p.evictions for p in self.producers)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return asdict(self)

    def _facts(self) -> list[tuple[str, str]]:
        """What changes from moment to moment is for people, in `_repr_html_` and `explain`."""
        return [
            ("broker", f"{self.endpoint or 'none'}, {self.word} for {age(self.since_s)}"),
            ("reconnects", str(self.reconnects)),
            ("lost, corrupt", f"{self.lost}, {self.corrupt} slots"),
            ("evictions", f"{self.evictions} readers"),
            ("free memory", size(self.free_nbytes)),
            *([("broker settings", self.settings_error)] if self.settings_error else []),
            *([("trouble", one_line(self.error))] if self.error else []),
            *((f"rejected {channel}", one_line(reason)) for channel, reason in self.rejected.items()),
        ]

    def explain(self) -> str:
        """Return all of it as a text of several lines."""
        rows = [("producer", *row) for row in self._producer_rows()]
        rows += [("consumer", *row) for row in self._consumer_rows()]
        return text_facts([*self._facts(), *((f"{kind} {name}", ", ".join(rest)) for kind, name, *rest in rows)])

    def _producer_rows(self) -> Iterable[tuple[str, ...]]:
        for p in self.producers:
            state = p.trouble or ("registered" if p.registered else "not registered")
            if p.renewed and not p.trouble:
                state += ", in a new segment since its file was removed"
            waits = f"waited {p.waits} times, {p.waited_s:.1f} s"
            yield p.channel, state, f"{p.written} written", waits, f"{p.timeouts} in vain", f"{p.evictions} evicted"

    def _consumer_rows(self) -> Iterable[tuple[str, ...]]:
        for c in self.consumers:
            state = c.trouble or (c.mode if c.producer_alive else f"{c.mode}, no producer")
            yield c.channel, state, f"lag {c.lag}", f"lost {c.lost}", f"corrupt {c.corrupt}"

    def _repr_html_(self) -> str:
        parts = [html_facts(f"hub: {self.word}", self._facts())]
        for title, rows in (("producers", self._producer_rows()), ("consumers", self._consumer_rows())):
            if table := list(rows):
                parts.append(f"<p>{title}</p>{html_table([''] * len(table[0]), table)}")
        return "".join(parts)

    def __repr__(self) -> str:
        counts = {"producers": len(self.producers), "consumers": len(self.consumers), "rejected": len(self.rejected)}
        return f"HubStatus({self.word!r}, {', '.join(f'{name}={n}' for name, n in counts.items())})"
