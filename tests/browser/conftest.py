"""A Jupyter server and a browser for each test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labhub.hub import stop_broker
from tests.browser.jupyter import Jupyter, Watched, chromium, missing, served

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"


@pytest.fixture(scope="session", autouse=True)
def browser_is_here() -> None:
    """Skip, and say what to install, where there is no browser."""
    if missing():
        pytest.skip(f"the browser tests need {missing()}")


@pytest.fixture
def jupyter(private_dirs: Path, wait_until: Callable[..., None]) -> Iterator[Callable[..., Jupyter]]:
    """Start Jupyter with JupyterLab and Notebook 7, in directories of its own; its kernels see the test's broker."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(served(private_dirs, wait_until, **options))
    with contextlib.suppress(LookupError, ConnectionError):
        stop_broker()


@pytest.fixture
def open_page() -> Iterator[Callable[[str], Watched]]:
    """Open a page in Chromium; at the end nothing may have gone wrong in it."""
    opened = []
    with chromium() as open_:

        def watched(url: str) -> Watched:
            opened.append(open_(url))
            return opened[-1]

        yield watched
    assert not [line for each in opened for line in each.unexpected()]


@pytest.fixture
def screenshots() -> Path:
    """Where pictures for people go."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
