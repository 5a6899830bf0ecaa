"""Results of the magics: plain and rich text, without anything random in the plain one."""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labhub.hub import ChannelInfo, Hub
from labhub.runtime import ConnectionFile

LOOK_INTERVAL = 0.05
"""How often a waiting `%hub_discover` asks the broker (in seconds)."""


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in plain text, its columns as wide as they need to be."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the same table in HTML, every cell escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f'<{tag} style="text-align:left">{html.escape(c)}</{tag}>' for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"


def age(seconds: float) -> str:
    """Put an age in words."""
    for limit, unit in ((120, "s"), (7200, "min"), (172_800, "h")):
        if seconds < limit:
            return f"{seconds / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


@dataclass(frozen=True, repr=False)
class BrokerStatus:
    """What `%hub_broker` shows; never a secret.

    Attributes
    ----------
    name : str
        Name of the broker.
    running : bool
    endpoint, public_key : str
        Empty when it does not run.
    uptime : float
        For how long it has been running (in seconds).
    channels : tuple of str
        Names of the channels that it knows.
    """

    name: str
    running: bool
    endpoint: str = ""
    public_key: str = ""
    uptime: float = 0.0
    channels: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: ConnectionFile, hub: Hub) -> BrokerStatus:
        """Ask a running broker."""
        names = tuple(channel.name for channel in hub.channels())
        return cls(found.name, True, found.endpoint, found.public_key, time.time() - found.start_time, names)

    @classmethod
    def stopped(cls, name: str) -> BrokerStatus:
        """Describe a broker that was stopped."""
        return cls(name, False)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            ("endpoint", self.endpoint),
            ("public key", self.public_key),
            ("uptime", age(self.uptime)),
            ("channels", ", ".join(self.channels) or "none"),
        ]

    def __repr__(self) -> str:
        if not self.running:
            return f"broker {self.name!r}: stopped"
        return f"broker {self.name!r}: running\n" + "\n".join(f"  {key:<10}  {value}" for key, value in self._rows())

    def _repr_html_(self) -> str:
        if not self.running:
            return f"broker <b>{html.escape(self.name)}</b>: stopped"
        return f"broker <b>{html.escape(self.name)}</b>: running" + html_table(("", ""), self._rows())


class ChannelTable(list[ChannelInfo]):
    """The channels that `%hub_discover` found: a list that shows itself as a table."""

    HEAD = ("channel", "slot", "units", "producer", "consumers", "age", "liveness")

    @classmethod
    def wait(cls, hub: Hub, pattern: str, seconds: float) -> ChannelTable:
        """Return the channels that match, as soon as there is one, at most `seconds` later."""
        deadline = time.monotonic() + seconds
        while True:
            found = cls(hub.channels(pattern))
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_INTERVAL)

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                c.name,
                c.layout or "undeclared",
                " ".join(dict.fromkeys(c.units.values())),
                str(c.producer_pid),
                str(c.consumers),
                age(c.age_s),
                c.liveness,
            )
            for c in self
        ]

    def __repr__(self) -> str:
        return text_table(self.HEAD, self._rows()) if self else "no channels"

    def _repr_html_(self) -> str:
        return html_table(self.HEAD, self._rows()) if self else "no channels"
