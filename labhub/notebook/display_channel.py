"""One channel in detail: what `%hub_info` and `%hub_tail` show."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np

from labhub.datablock.batch import Batch
from labhub.datablock.diagnostics import Diagnosis
from labhub.hub import ChannelInfo
from labhub.notebook.rates import mean_rate
from labhub.tables import html_facts, html_table, text_facts, text_table
from labhub.words import age, size

SHOWN_ELEMENTS = 6
"""Elements of a slot that are shown."""


@dataclass(frozen=True, repr=False)
class ChannelReport:
    """What is known of a channel.

    Attributes
    ----------
    info : ChannelInfo
        From the broker.
    diagnosis : Diagnosis or None
        From the segment; None if that is not of this machine.
    """

    info: ChannelInfo
    diagnosis: Diagnosis | None

    READERS = ("reader", "kind", "cursor", "lag", "received", "lost")

    def _facts(self) -> list[tuple[str, str]]:
        info = self.info
        units = ", ".join(f"{name} in {unit}" for name, unit in info.units.items())
        facts = [("slot", info.layout or "undeclared"), ("units", units or "none")]
        if info.schema is not None and info.schema.dims:
            facts.append(("dims", ", ".join(info.schema.dims)))
        if info.schema is not None and info.schema.sample_rate:
            facts.append(("sample rate", f"{info.schema.sample_rate:g} per second"))
        facts.append(("producer", f"pid {info.producer_pid} on {info.producer_hostname}, {info.liveness}"))
        facts.append(("registered", f"{age(info.age_s)} ago"))
        found = self.diagnosis
        if found is not None:
            facts += [
                ("ring", f"{found.capacity} slots of {size(found.slot_nbytes)}, {found.sync_policy}"),
                ("written", f"{found.head - found.first_seq} slots, {mean_rate(found)}"),
                ("epoch", str(found.epoch)),
            ]
        return facts

    def _readers(self) -> list[tuple[str, ...]]:
        if self.diagnosis is None:
            return []
        return [
            (f"pid {r.pid}", r.kind + ("" if r.alive else ", dead"), *map(str, (r.cursor, r.lag, r.received, r.lost)))
            for r in self.diagnosis.readers
        ]

    def __repr__(self) -> str:
        readers = self._readers()
        text = f"channel {self.info.name!r}\n{text_facts(self._facts())}"
        return f"{text}\n{text_table(self.READERS, readers)}" if readers else text

    def _repr_html_(self) -> str:
        readers = self._readers()
        return html_facts(f"channel {self.info.name}", self._facts()) + (
            html_table(self.READERS, readers) if readers else ""
        )


@dataclass(frozen=True, repr=False)
class Tail:
    """The newest slots of a channel, one a line.

    Attributes
    ----------
    batch : Batch
        The slots.
    """

    batch: Batch

    def _head(self) -> tuple[str, ...]:
        schema = self.batch.schema
        units = schema.units
        return ("seq", "time", *(f"{f} / {units[f]}" if f in units else f for f in schema.fields))

    def _rows(self) -> list[tuple[str, ...]]:
        batch = self.batch
        columns = [batch.data] if batch.data.dtype.names is None else [batch.data[f] for f in batch.data.dtype.names]
        times = batch.time.astype("datetime64[ms]")
        return [
            (str(seq), str(at), *(_shown(column[k]) for column in columns))
            for k, (seq, at) in enumerate(zip(batch.seq, times, strict=True))
        ]

    def __repr__(self) -> str:
        rows = self._rows()
        return text_table(self._head(), rows) if rows else f"{self.batch.channel}: nothing written yet"

    def _repr_html_(self) -> str:
        rows = self._rows()
        return html_table(self._head(), rows) if rows else html.escape(f"{self.batch.channel}: nothing written yet")


def _shown(value: object) -> str:
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array[()]:.6g}" if array.dtype.kind == "f" else str(array[()])
    text = ", ".join(_shown(v) for v in array.ravel()[:SHOWN_ELEMENTS])
    return f"[{text}, ...] of {array.shape}" if array.size > SHOWN_ELEMENTS else f"[{text}]"
