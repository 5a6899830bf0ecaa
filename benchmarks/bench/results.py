"""What a session leaves behind: a JSON file with every figure of every round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path

from bench.contender import Figures, Role
from bench.meter import NAMES, alike
from bench.workload import Workload


@dataclass
class Result:
    """Everything that was measured.

    Attributes
    ----------
    machine : dict
        On what.
    rounds : int
    workloads : dict of str to Workload
        By name; `amount` is what the table asks for, not what was fitted to a contender.
    roles : dict of str to str
        Of each contender: ``labhub``, ``peer`` or ``limit``.
    runs : dict of str to dict of str to list
        By workload and contender: all figures of each round, or None where the run failed.
    missing : dict of str to str
        Contenders that could not take part, and why.
    failures : list of str
        Runs that failed, and why.
    """

    machine: dict[str, object]
    rounds: int
    workloads: dict[str, Workload] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    runs: dict[str, dict[str, list[Figures | None]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def figures(self) -> Mapping[str, dict[str, list[float]]]:
        """By workload and contender: its figure in each round, nan where the run failed."""
        return {
            workload: {
                name: [nan if run is None else run[self.workloads[workload].figure] for run in runs]
                for name, runs in rows.items()
            }
            for workload, rows in self.runs.items()
        }

    @property
    def ways(self) -> list[float]:
        """Every reading of how long a cache line took from CPU to CPU and back (in nanoseconds)."""
        runs = [run for rows in self.runs.values() for runs in rows.values() for run in runs if run is not None]
        return [run[name] for run in runs for name in NAMES if name in run]

    def pairs(self, workload: str, own: str, other: str, *, like: bool = True) -> list[tuple[float, float]]:
        """Return the figures of two contenders in each round, or in those that found the CPUs alike for both."""
        rows, figure = self.runs.get(workload, {}), self.workloads[workload].figure
        both = zip(rows.get(own, []), rows.get(other, []), strict=False)
        runs = [(a, b) for a, b in both if a is not None and b is not None]
        return [(a[figure], b[figure]) for a, b in runs if alike(a, b) or not like]

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read the file."""
        found = json.loads(path.read_text())
        found["workloads"] = {name: Workload(**fields) for name, fields in found["workloads"].items()}
        return cls(**found)
