"""A shell with the magics, a broker, and real kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from labhub.hub import start_broker, stop_broker
from tests.kernels import Notebook, running_notebook

Run = Callable[[str], Any]


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "labhub")
    yield shell
    shell.run_line_magic("unload_ext", "labhub")


@pytest.fixture
def run(shell: InteractiveShell) -> Run:
    """Run a cell as a user would; its result, None if all it gave was a usage error."""

    def run(code: str) -> Any:
        outcome = shell.run_cell(code)
        if outcome.error_in_exec is not None and not isinstance(outcome.error_in_exec, UsageError):
            raise outcome.error_in_exec
        return outcome.result

    return run


@pytest.fixture
def broker() -> Iterator[None]:
    """A broker in a process of its own."""
    start_broker(endpoint="tcp://127.0.0.1:0")
    yield
    stop_broker()


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """A real kernel with the extension loaded."""
    with running_notebook() as notebook:
        yield notebook
