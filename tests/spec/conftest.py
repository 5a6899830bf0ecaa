"""One process of real labhub for the tests of a module; a new one where a test has killed it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .real_labhub import RealLabhub


@pytest.fixture(scope="module")
def process() -> Iterator[RealLabhub]:
    with RealLabhub() as made:
        yield made


@pytest.fixture
def real(process: RealLabhub) -> RealLabhub:
    return process.revive()
