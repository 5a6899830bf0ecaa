"""A notebook's kernel under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

PUMP = """%%hub_producer pump
import labhub, time
with labhub.connect().producer("pump.p", like=1.5) as p:
    while True:
        p.write(2.5)
        time.sleep(0.005)
"""


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


@contextmanager
def running_notebook() -> Iterator[Notebook]:
    """A real kernel with the extension loaded."""
    manager, client = start_new_kernel(kernel_name="python3")
    notebook = Notebook(manager, client)
    try:
        notebook.run("%load_ext labhub")
        yield notebook
    finally:
        client.stop_channels()
        manager.shutdown_kernel()
