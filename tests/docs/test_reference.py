"""Reference pages that are written by hand say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_environment_variable_is_described() -> None:
    used = {
        name
        for path in (ROOT / "labhub").rglob("*.py")
        if "testing" not in path.parts
        for name in re.findall(r"environ(?:\.get\(|\[)\"(LABHUB_\w+)\"", path.read_text())
    }
    described = re.findall(r"^\| `(\w+)`", (ROOT / "docs/reference/environment.md").read_text(), re.MULTILINE)
    assert len(used) >= 3
    assert set(described) == used
