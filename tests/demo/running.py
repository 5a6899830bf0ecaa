"""The demo in a process of its own, and its table."""

from __future__ import annotations

import re
import subprocess
import sys

ROW = re.compile(r"^ *(?P<name>[a-z][a-z., ]*[a-z]) +(?P<numbers>[\d.]+(?: +[\d.-]+)*) *$", re.MULTILINE)


def demos(private_dirs, monkeypatch):
    """Yield what starts `labhub demo`, with its temporary files in a place of its own; none may be there afterwards."""
    monkeypatch.setenv("TMPDIR", str(private_dirs / "tmp"))
    (private_dirs / "tmp").mkdir()
    processes = []

    def start(seconds: float, *words: str, program: str = "") -> subprocess.Popen[str]:
        labhub = ["-c", program] if program else ["-m", "labhub.cli"]
        command = [sys.executable, *labhub, "demo", "--seconds", f"{seconds}", *words]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=60)


def rows(text: str) -> dict[str, list[float]]:
    table = text[text.index("channel, readers") :]
    return {row["name"]: [float(x) for x in row["numbers"].split() if x != "-"] for row in ROW.finditer(table)}


def is_empty(directory) -> bool:
    return list(directory.iterdir()) == []
