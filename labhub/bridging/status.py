"""How a bridge does, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from labhub.tables import html_facts, html_table, text_table
from labhub.words import size, visible


@dataclass(frozen=True)
class ExportStatus:
    """How the export of one channel does.

    Attributes
    ----------
    channel : str
        Its name.
    state : str
        ``"waiting"`` (nobody imports it), ``"sending"``, ``"network cannot keep up"`` (what waits is over a second old,
        or some was lost for want of memory), ``"no reader"`` (those that there were are gone, or cut off), ``"gone"``
        (the channel has ended), or what else is wrong.
    lossless : bool
        Whether it waits for the network.
    sent : int
        Slots that were handed to the network.
    lost : int
        Slots that never were: a lossy reader was lapped, or the backlog was full.
    backlog : int
        Slots that wait for the network, and `backlog_nbytes`, their memory (in bytes).
    """

    channel: str
    state: str
    lossless: bool = False
    sent: int = 0
    lost: int = 0
    backlog: int = 0
    backlog_nbytes: int = 0


@dataclass(frozen=True)
class ImportStatus:
    """How the import of one channel does.

    Attributes
    ----------
    site, channel : str
        Whose it is, and its name.
    state : str
        ``"receiving"``, ``"waiting"`` (for an answer of the other side), ``"cut"`` (the other side cannot be reached),
        ``"ended"``, ``"loop"`` (it comes from here), ``"conflict"``, ``"refused"`` (it is asked for again),
        ``"left out"`` (a limit of the bridge is reached) or ``"failed"`` (a thread of the imports has ended); `detail`
        says more.
    detail : str
        More words, or none.
    received : int
        Slots that arrived.
    lost : int
        Slots that did not, and that readers here count as lost.
    clock_offset_ns : int or None
        What the clock there is ahead of the one here (in nanoseconds); None if it was not measured.
    clock_error_ns : int or None
        By how much that may be wrong (in nanoseconds).
    """

    site: str
    channel: str
    state: str
    detail: str = ""
    received: int = 0
    lost: int = 0
    clock_offset_ns: int | None = None
    clock_error_ns: int | None = None


@dataclass(frozen=True, repr=False)
class BridgeStatus:
    """How a bridge does. Its repr has no numbers that differ from run to run.

    Attributes
    ----------
    site : str
        What this machine is called by the others.
    state : {"connected", "listening", "not connected", "closed"}
    n_peers : int
        Machines that are connected.
    problems : tuple of str
        Endpoints that cannot be reached, and why; and what is wrong with the bridge itself.
    exports : tuple of ExportStatus
    imports : tuple of ImportStatus
    """

    site: str
    state: str
    n_peers: int = 0
    problems: tuple[str, ...] = ()
    exports: tuple[ExportStatus, ...] = ()
    imports: tuple[ImportStatus, ...] = ()

    @property
    def lost(self) -> int:
        """Slots that its imports lost, altogether."""
        return sum(i.lost for i in self.imports)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return asdict(self)

    def explain(self) -> str:
        """Return all of it as a text of several lines."""
        first = f"bridge of {self.site}: {self.state}, {self.n_peers} peers"
        lines = [visible(line) for line in (first, *self.problems)]
        if rows := list(self._rows()):
            lines.append(text_table(("", "channel", "state", "slots", "lost", ""), rows))
        return "\n".join(lines)

    def _rows(self) -> Iterable[tuple[str, ...]]:
        for e in self.exports:
            waits = f"{e.backlog} slots ({size(e.backlog_nbytes)}) wait" if e.backlog else ""
            yield "export", e.channel, e.state, str(e.sent), str(e.lost), waits
        for i in self.imports:
            clock = "" if i.clock_offset_ns is None else f"clock {i.clock_offset_ns / 1e6:+.3f} ms"
            yield "import", f"{i.site}/{i.channel}", i.state, str(i.received), str(i.lost), i.detail or clock

    def _repr_html_(self) -> str:
        facts = [("state", self.state), ("peers", str(self.n_peers)), *(("problem", p) for p in self.problems)]
        table = html_table(("", "channel", "state", "slots", "lost", ""), self._rows())
        return html_facts(f"bridge of {self.site}", facts) + table

    def __repr__(self) -> str:
        exports = "".join(f", export {e.channel!r}: {e.state}" for e in self.exports)
        imports = "".join(f", import '{i.site}/{i.channel}': {i.state}" for i in self.imports)
        return f"BridgeStatus({self.site!r}, {self.state}{exports}{imports})"
