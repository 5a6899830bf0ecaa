"""Results of the magics: plain and rich text, without anything random in the plain one."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labhub.hub import ChannelInfo
from labhub.notebook.rates import Rate
from labhub.tables import html_facts, html_table, text_facts, text_table
from labhub.words import age

if TYPE_CHECKING:
    from labhub.doctor import Finding


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
    def stopped(cls, name: str) -> BrokerStatus:
        """Describe a broker that was stopped."""
        return cls(name, False)

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("endpoint", self.endpoint),
            ("public key", self.public_key),
            ("uptime", age(self.uptime)),
            ("channels", ", ".join(self.channels) or "none"),
        ]

    def __repr__(self) -> str:
        if not self.running:
            return f"broker {self.name!r}: stopped"
        return f"broker {self.name!r}: running\n{text_facts(self._facts())}"

    def _repr_html_(self) -> str:
        if not self.running:
            return f"broker <b>{html.escape(self.name)}</b>: stopped"
        return html_facts(f"broker {self.name}: running", self._facts())


class ChannelTable(list[ChannelInfo]):
    """The channels that `%hub_discover` found: a list that shows itself as a table.

    Attributes
    ----------
    rates : dict of str to Rate
        How fast each channel is written; those whose segment could not be looked at are not in it.
    """

    HEAD = ("channel", "slot", "units", "slots/s", "producer", "consumers", "age", "liveness")

    def __init__(self, channels: Iterable[ChannelInfo] = (), rates: dict[str, Rate] | None = None) -> None:
        super().__init__(channels)
        self.rates = rates or {}

    @property
    def names(self) -> list[str]:
        """Names of the channels."""
        return [channel.name for channel in self]

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                c.name,
                c.layout or "undeclared",
                " ".join(dict.fromkeys(c.units.values())),
                str(self.rates.get(c.name, "")),
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


class Findings(list["Finding"]):
    """What `%hub_doctor` found: a list that shows what is not in order, and counts the rest."""

    HEAD = ("", "check", "about", "found", "what to do")

    def _rows(self) -> list[tuple[str, ...]]:
        return [(f.severity, f.check, f.subject, f.what, f.fix) for f in self if f.severity != "ok"]

    def _summary(self) -> str:
        return f"{sum(f.severity == 'ok' for f in self)} of {len(self)} findings: in order"

    def __repr__(self) -> str:
        rows = self._rows()
        return f"{text_table(self.HEAD, rows)}\n{self._summary()}" if rows else self._summary()

    def _repr_html_(self) -> str:
        rows = self._rows()
        return (html_table(self.HEAD, rows) if rows else "") + f"<p>{self._summary()}</p>"


class Text(str):
    """Text that shows itself as it is: a log, a traceback."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
