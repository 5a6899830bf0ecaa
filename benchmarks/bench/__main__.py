"""Measure, print, and write the JSON file and the picture: ``make bench``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from bench.catalogue import contenders, workloads
from bench.chart import draw
from bench.report import text
from bench.runner import session

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    """Run what was asked for."""
    arguments = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20, help="interleaved rounds; verdicts need 20")
    arguments.add_argument("--only", default="", help="only workloads with one of these, separated by |, in their name")
    arguments.add_argument("--with", dest="who", default="", help="likewise for contenders; labhub is always there")
    arguments.add_argument("--smoke", action="store_true", help="two rounds: does everything run?")
    arguments.add_argument("--result", type=Path, default=RESULTS / "bench.json", help="the JSON file to write")
    arguments.add_argument("--chart", type=Path, help="the picture to write")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that processes and files are removed
    chosen = [w for w in workloads() if any(part in w.name for part in given.only.split("|"))]
    if not chosen:
        arguments.error(f"no workload has {given.only!r} in its name")
    present = [c for c in contenders() if c.role == "labhub" or any(part in c.name for part in given.who.split("|"))]
    result = session(present, chosen, 2 if given.smoke else given.rounds)
    result.write(given.result)
    print(text(result))
    print(f"written to {given.result}")
    if given.chart:
        draw(result, given.chart)


if __name__ == "__main__":
    main()
