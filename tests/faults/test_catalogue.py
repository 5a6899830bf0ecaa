from __future__ import annotations

import re
from pathlib import Path

from tests.faults.publish import DOCUMENT, MARK

NUMBERS = range(1, 48)


def test_every_fault_of_the_catalogue_is_provoked_by_a_test_of_its_number() -> None:
    before, *_ = DOCUMENT.read_text().split(MARK)  # behind it, the table of a run has the same numbers
    catalogue = [int(number) for number in re.findall(r"^\| (\d+) \|", before, re.MULTILINE)]
    assert catalogue == list(NUMBERS)
    tests = {
        int(number)
        for module in Path(__file__).parent.rglob("test_*.py")
        for number in re.findall(r"^def test_(\d\d)_", module.read_text(), re.MULTILINE)
    }
    assert [number for number in catalogue if number not in tests] == []
