from __future__ import annotations

from tests.faults.publish import DOCUMENT, MARK, published


def test_the_table_of_a_run_replaces_the_one_before() -> None:
    document = DOCUMENT.read_text()
    assert document.count(MARK) == 2
    first = published(document, "| first |\n")
    assert f"{MARK}\n| first |\n{MARK}" in first
    assert published(first, "| next |") == first.replace("| first |", "| next |")
