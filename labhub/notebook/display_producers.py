"""Background producers, as `%hub_producers` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labhub.tables import html_table, text_table
from labhub.words import age

if TYPE_CHECKING:
    from labhub.notebook.background import BackgroundProducers


@dataclass(frozen=True, repr=False)
class ProducerTable:
    """The background producers at one moment.

    Attributes
    ----------
    rows : tuple of tuple of str
        Name, state, process, for how long, channels and why it failed.
    """

    rows: tuple[tuple[str, ...], ...]

    HEAD = ("producer", "state", "pid", "for", "channels", "error")

    @classmethod
    def of(cls, producers: BackgroundProducers, channels: Mapping[int, list[str]]) -> ProducerTable:
        """Describe the producers, with the channels of each process."""
        return cls(
            tuple(
                (p.name, p.state, str(p.pid or ""), age(p.seconds), ", ".join(channels.get(p.pid, ())), p.error)
                for p in producers
            )
        )

    def __repr__(self) -> str:
        return text_table(self.HEAD, self.rows) if self.rows else "no background producers"

    def _repr_html_(self) -> str:
        return html_table(self.HEAD, self.rows) if self.rows else "no background producers"
