"""The fixture `fault`, and the table at the end: what was provoked, how often, and what came of it.

`LABHUB_TORTURE_MINUTES` turns the quick rounds of `make test` into full ones; `LABHUB_TORTURE_TABLE` names a Markdown
file for the table. `make torture` sets both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rounds import Fault

HEADINGS = ("fault", "what was done", "rounds", "happened", "survived", "recovery p99", "worst")
SHARE_OF_ONE = 1.0
faults = pytest.StashKey[list[Fault]]()
seconds_per_share = pytest.StashKey[float | None]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    shares = [m.kwargs.get("share", SHARE_OF_ONE) for item in items if (m := item.get_closest_marker("fault"))]
    minutes = os.environ.get("LABHUB_TORTURE_MINUTES")
    config.stash[faults] = []
    config.stash[seconds_per_share] = float(minutes) * 60 / sum(shares) if minutes and shares else None
    if minutes:  # the full rounds, and a share of the time given
        for item in items:
            item.add_marker(pytest.mark.timeout(3600 + 60 * float(minutes)))


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[Fault]:
    """Keep the books of a test marked ``fault(NUMBER, quick=, full=, share=, p99=)``, and judge them after it."""
    marker = request.node.get_closest_marker("fault")
    (number,) = marker.args
    share = request.config.stash[seconds_per_share]
    asked = dict(marker.kwargs)
    weight = asked.pop("share", SHARE_OF_ONE)
    words = request.node.name.removeprefix(f"test_{number:02d}_").replace("_", " ")
    books = Fault(number, words, seconds=None if share is None else share * weight, **asked)
    request.config.stash[faults].append(books)
    yield books
    if not request.node.stash.get(failed, False):
        books.judge()


failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.stash[failed] = not report.passed  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    done = sorted((f for f in config.stash.get(faults, []) if f.rounds), key=lambda f: (f.number, f.name))
    if not done:
        return
    rows = [_row(f) for f in done]
    if path := os.environ.get("LABHUB_TORTURE_TABLE"):
        table = [HEADINGS, ("--:", ":--", *["--:"] * 5), *rows]
        Path(path).write_text("".join("| " + " | ".join(row) + " |\n" for row in table))
    widths = [max(len(row[k]) for row in [HEADINGS, *rows]) for k in range(len(HEADINGS))]
    terminalreporter.section("faults")
    for row in [HEADINGS, *rows]:
        number, what, *rest = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        terminalreporter.line("  ".join([number, what.strip().ljust(widths[1]), *rest]))


def _row(fault: Fault) -> tuple[str, ...]:
    counts = (f"{n:,}" for n in (fault.rounds, fault.occurred, fault.survived))
    return (str(fault.number), fault.name, *counts, *(_seconds(fault.quantile(q)) for q in (0.99, 1.0)))


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
