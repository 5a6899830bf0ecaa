"""The example notebooks: linked, with outputs that were checked, and without anything of the machine that made them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
STORIES = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_the_index_links_every_notebook_and_nothing_else() -> None:
    text = "".join(source(cell) for cell in cells(NOTEBOOKS / "index.ipynb"))
    assert sorted(re.findall(r"\(([^)]+\.ipynb)\)", text)) == [path.name for path in STORIES]


@pytest.mark.parametrize("path", [*STORIES, NOTEBOOKS / "index.ipynb"], ids=lambda path: path.stem)
class TestNotebook:
    def test_it_was_run_from_top_to_bottom(self, path: Path) -> None:
        counts = [cell["execution_count"] for cell in cells(path) if cell["cell_type"] == "code"]
        assert counts == list(range(1, len(counts) + 1))
        assert all(o["output_type"] != "error" for cell in cells(path) for o in cell.get("outputs", []))

    def test_an_ignored_output_is_followed_by_an_assertion(self, path: Path) -> None:
        code = [source(cell) for cell in cells(path) if cell["cell_type"] == "code"]
        for cell, following in zip(code, [*code[1:], ""], strict=True):
            if "NBVAL_IGNORE_OUTPUT" in cell:
                assert "assert " in following, cell

    def test_it_shows_nothing_of_the_machine(self, path: Path) -> None:
        text = path.read_text()
        for word in ("/home/", "/root/", "/work/", "site-packages", "/dev/shm/labhub-nb"):
            assert word not in text

    def test_it_cleans_up(self, path: Path) -> None:
        text = "\n".join(source(cell) for cell in cells(path))
        assert "%hub_broker stop" in text or "%unload_ext labhub" in text
