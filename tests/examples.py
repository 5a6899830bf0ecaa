"""What the examples in docstrings and how-to pages find: a broker, and directories of their own. For `make doctest`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import labhub
from labhub.hub import named_broker
from tests.conftest import private_dirs

__all__ = ["private_dirs"]


@pytest.fixture(autouse=True)
def example(
    private_dirs: Path, doctest_namespace: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Run each example in a folder of its own, with a broker, and with what it does not show."""
    monkeypatch.chdir(tmp_path)
    with named_broker(endpoint="tcp://127.0.0.1:0") as broker:
        broker.start()
        with labhub.connect() as hub:
            doctest_namespace |= {"hub": hub, "labhub": labhub, "np": np}
            yield
