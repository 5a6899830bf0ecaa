"""Tables of a result, for the terminal and for docs/performance.md.

``python -m bench.report RESULT.json [--docs PAGE.md]``, with ``benchmarks`` on the module path.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from common import aligned

from bench.results import Result
from bench.statistics import interval
from bench.targets import TARGETS, judge
from bench.workload import Workload

Rows = list[tuple[str, ...]]
UNITS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def short(value: float) -> str:
    """Write a number in three digits."""
    for letter, unit in UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.3g} "


def measurements(result: Result) -> Rows:
    """Return one row for each workload and contender: its median, and labhub's figure in units of it, with interval."""
    rows: Rows = [("workload", "contender", "median", "quartiles", "bytes/s", "labhub ÷ this")]
    for name, contenders in result.figures.items():
        workload = result.workloads[name]
        for contender, values in contenders.items():
            good = [v for v in values if not np.isnan(v)]
            if not good:
                rows.append((name, contender, "failed", "", "", ""))
                continue
            low, middle, high = np.quantile(good, (0.25, 0.5, 0.75))
            rows.append(
                (
                    name,
                    contender,
                    f"{short(middle)}{workload.unit}",
                    f"{short(low)}.. {short(high)}".strip(),
                    bandwidth(workload, middle),
                    ratio(result, name, contender),
                )
            )
    return rows


def ratio(result: Result, workload: str, other: str) -> str:
    """Divide labhub's figure by another's, round by round."""
    if other == "labhub":
        return ""
    return str(interval([a / b for a, b in result.pairs(workload, "labhub", other)]) or "")


def bandwidth(workload: Workload, per_second: float) -> str:
    """Bytes per second, if that is what flows."""
    return f"{short(per_second * workload.nbytes)}B/s" if workload.figure == "per_second" else ""


def verdicts(result: Result) -> Rows:
    """Return one row for each target whose workload was measured."""
    rows: Rows = [("target", "", "against", "like rounds [95 %]", "all rounds [95 %]", "verdict")]
    for target in TARGETS:
        if target.workload in result.runs:
            judgement = judge(target, result)
            intervals = (str(judgement.found or ""), str(judgement.everything or ""))
            rows.append((target.workload, str(target), judgement.against, *intervals, judgement.verdict))
    return rows


def notes(result: Result) -> list[str]:
    """Say who was not there, and what failed."""
    told = [f"not there: {name} ({why})" for name, why in result.missing.items()]
    ways = result.ways
    if ways:
        low, middle, high = np.quantile(ways, (0.05, 0.5, 0.95))
        told.append(
            f"a cache line took {middle:.0f} ns from the producer's CPU to the consumer's and back (5 % of the "
            f"readings below {low:.0f}, 5 % above {high:.0f}); ratios are of rounds in which both runs found it alike"
        )
    return told + [f"failed: {' '.join(failure.split())}" for failure in result.failures]


def text(result: Result) -> str:
    """Return everything for a terminal."""
    return "\n\n".join([aligned(measurements(result)), aligned(verdicts(result)), "\n".join(notes(result))]).rstrip()


def markdown(rows: Rows) -> str:
    """Return a table for a page."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def machine(result: Result) -> str:
    """Say on what it was measured."""
    facts = result.machine
    return (
        f"{facts['cpu']}, {facts['cpus']} CPUs, Python {facts['python']}, load {facts['load']:.1f} at the start; "
        f"{result.rounds} rounds."
    )


def fill(page: Path, parts: dict[str, str]) -> None:
    """Put text between the marks of a page, so that no figure in it is typed by hand."""
    content = page.read_text()
    for name, part in parts.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, found, rest = content.partition(begin)
        if found:
            content = f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
    page.write_text(content)


def parts(result: Result) -> dict[str, str]:
    """Return what docs/performance.md has marks for."""
    return {
        "machine": machine(result),
        "verdicts": markdown(verdicts(result)),
        "measurements": markdown(measurements(result)),
        "notes": "\n".join(f"- {note}" for note in notes(result)),
    }


def main() -> None:
    """Print, and fill a page."""
    arguments = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    arguments.add_argument("result", type=Path)
    arguments.add_argument("--docs", type=Path, help="a page with marks to fill")
    given = arguments.parse_args()
    result = Result.read(given.result)
    print(text(result))
    if given.docs:
        fill(given.docs, parts(result))


if __name__ == "__main__":
    main()
