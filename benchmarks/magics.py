"""How long the magics keep a notebook waiting: ``python benchmarks/magics.py`` prints a table.

Everything runs in a shell of this process, against a broker process with 50 channels, in directories of its own.
"""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 20
CHANNELS = 50
ANY = "tcp://127.0.0.1:0"


def milliseconds(action: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median and worst time of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), max(times)


def fresh(statement: str, prepare: str = "") -> tuple[float, float]:
    """Time of a statement in fresh interpreters."""
    program = f"{prepare}\nimport time\nb = time.perf_counter()\n{statement}\nprint((time.perf_counter() - b) * 1e3)"
    done = [float(subprocess.check_output([sys.executable, "-c", program])) for _ in range(5)]
    return statistics.median(done), max(done)


def measure() -> list[tuple[str, float, float]]:
    """Every row of the table: what, median and worst (in milliseconds)."""
    from IPython.core.interactiveshell import InteractiveShell

    import labhub
    from labhub.hub import start_broker, stop_broker

    kernel = "import ipykernel.ipkernel, IPython; s = IPython.core.interactiveshell.InteractiveShell()"
    rows = [
        ("import labhub", *fresh("import labhub")),
        ("%load_ext labhub, in a kernel", *fresh("s.run_line_magic('load_ext', 'labhub')", kernel)),
    ]
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "labhub")
    rows.append(("%hub_broker start, a new process", *milliseconds(lambda: start_broker(endpoint=ANY), 1)))
    hub = labhub.connect()
    producers = [hub.producer(f"bench.c{k:02d}", like=1.5, units="V", capacity=64) for k in range(CHANNELS)]
    for producer in producers:
        producer.write_many([1.0] * 64)

    def line(text: str) -> Callable[[], object]:
        return lambda: repr(shell.run_cell(text).result)

    try:
        for text in (
            "%hub_broker",
            "%hub_broker start",
            "%hub_connect",
            "%hub_discover",
            "%hub_info bench.c01",
            "%hub_tail bench.c01",
            "%hub_producers",
        ):
            rows.append((text, *milliseconds(line(text))))
        rows.append(("completion of a channel", *milliseconds(lambda: complete(shell, "%hub_info bench.c0"))))
        cell = "%%hub_producer bench --restart\nimport time\ntime.sleep(100)"
        rows.append(("%%hub_producer, first", *milliseconds(line(cell), 1)))
        rows.append(("background kernel until its cell runs", *milliseconds(lambda: until_running(shell), 1)))
    finally:
        shell.run_line_magic("unload_ext", "labhub")
        hub.close()
        stop_broker()
    return rows


def complete(shell: object, text: str) -> object:
    """What a Tab does."""
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return list(shell.Completer.completions(text, len(text)))  # type: ignore[attr-defined]


def until_running(shell: object) -> None:
    """Start a background producer, and wait until its cell runs."""
    run = shell.run_cell  # type: ignore[attr-defined]
    handle = run("%%hub_producer bench --restart\nimport time\nprint('on')\ntime.sleep(100)").result
    while not handle.log():
        time.sleep(0.005)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="labhub-bench-", dir="/dev/shm") as base:
        for name in ("shm", "runtime", "data"):
            (Path(base) / name).mkdir(mode=0o700)
            os.environ[f"LABHUB_{name.upper()}_DIR"] = str(Path(base) / name)
        with contextlib.redirect_stdout(io.StringIO()):
            rows = measure()
    print(f"{'':<40} {'median / ms':>12} {'worst / ms':>12}")
    for what, median, worst in rows:
        print(f"{what:<40} {median:>12.1f} {worst:>12.1f}")


if __name__ == "__main__":
    main()
