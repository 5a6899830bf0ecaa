"""A shell with the magics, a broker, and real kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from labhub.hub import start_broker, stop_broker

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


class Notebook:
    """A notebook's kernel, as a server would run it."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.process = psutil.Process(manager.provisioner.pid)

    def run(self, code: str, timeout: float = 30.0) -> str:
        """Run a cell; what it printed and gave, as text. A cell that raises fails the test."""
        text, error = self.run_anyhow(code, timeout)
        assert not error, error
        return text

    def run_anyhow(self, code: str, timeout: float = 30.0) -> tuple[str, str]:
        """Run a cell that may raise; its text, and the name of its error."""
        parts: list[str] = []
        errors: list[str] = []

        def take(message: dict[str, Any]) -> None:
            content = message["content"]
            match message["header"]["msg_type"]:
                case "stream":
                    parts.append(content["text"])
                case "execute_result" | "display_data":
                    parts.append(content["data"]["text/plain"])
                case "error":
                    errors.append(f"{content['ename']}: {content['evalue']}")

        self.client.execute_interactive(code, timeout=timeout, output_hook=take)
        return "".join(parts), "".join(errors)


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """A real kernel with the extension loaded."""
    manager, client = start_new_kernel(kernel_name="python3")
    notebook = Notebook(manager, client)
    notebook.run("%load_ext labhub")
    yield notebook
    client.stop_channels()
    manager.shutdown_kernel()
