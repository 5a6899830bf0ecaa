"""What is measured: one producer, some consumers, so many slots of such a size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["stream", "datasets", "scan", "pingpong", "wakeup"]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes
    ----------
    name : str
        What the row is called, and what ``--only`` looks at.
    kind : str
        ``stream``: slots flow as fast as they can. ``datasets``: the time of a batch of `batch` slots. ``scan``: the
        producer's look at `batch` cursors. ``pingpong`` and ``wakeup``: see benchmarks/latency.
    nbytes : int
        Size of one slot (in bytes).
    batch : int
        Slots of one write and of one read; 1 is "one by one".
    slots_in_flight : int
        How many slots the producer may be ahead of the slowest consumer: the same for every contender.
    amount : int
        Slots of one run. The runner fits it to each contender, so that every run takes about as long.
    consumers : int
        Consumers that lose nothing.
    lossy : int
        Consumers beside them that may lose slots, and that nobody waits for.
    figure : str
        Which of the figures that a run gives is the row's; the others are kept in the JSON file.
    unit : str
        Of that figure.
    peers : bool
        Whether peers take part, or labhub and the limits only.
    idle : float
        How long nothing is sent in the middle of a ``wakeup`` run (in seconds); only labhub takes part in that.
    """

    name: str
    kind: Kind
    nbytes: int
    batch: int = 1
    slots_in_flight: int = 1
    amount: int = 1
    consumers: int = 1
    lossy: int = 0
    figure: str = "per_second"
    unit: str = "slots/s"
    peers: bool = True
    idle: float = 0.0

    @property
    def readers(self) -> int:
        """Consumers of both kinds."""
        return self.consumers + self.lossy
