"""A Jupyter server on loopback, and a page that is watched: no request leaves this machine, no error is missed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat

try:
    from playwright.sync_api import Browser, Page, sync_playwright
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
except ModuleNotFoundError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
# Notebook 7.6 raises this by itself, on an empty notebook, too.
NOTEBOOK_SCHEMA_ERROR = re.compile(r"^page: .*Cannot read properties of undefined \(reading 'schema'\)")


def missing() -> str:
    """What to install before there is a browser to test with; empty if it is all there."""
    if sync_playwright is None:
        return "playwright: pip install playwright"
    return "" if os.access(CHROMIUM, os.X_OK) else "Chromium: apt-get install chromium"


@dataclass
class Jupyter:
    """A running server."""

    url: str
    token: str
    root: Path

    def notebook(self, name: str, cells: list[str]) -> None:
        """Write a notebook into its directory."""
        document = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        for k, cell in enumerate(document.cells):
            cell["id"] = f"cell-{k}"
        nbformat.write(document, self.root / name)


@contextlib.contextmanager
def served(
    base: Path, wait_until: Callable[..., None], theme: str = "Light", save_widgets: bool = False
) -> Iterator[Jupyter]:
    """Run one server until the block is left; then its kernels are gone, too."""
    root, settings, runtime = base / "notebooks", base / "settings", base / "jupyter-runtime"
    root.mkdir()
    _write_setting(settings, "@jupyterlab/apputils-extension/themes", {"theme": f"JupyterLab {theme}"})
    _write_setting(settings, "@jupyterlab/apputils-extension/notification", {"fetchNews": "false"})
    _write_setting(settings, "@jupyter-widgets/jupyterlab-manager/plugin", {"saveState": save_widgets})
    private = {
        "JUPYTER_CONFIG_DIR": base / "jupyter-config",
        "JUPYTER_DATA_DIR": base / "jupyter-data",
        "JUPYTER_RUNTIME_DIR": runtime,
        "JUPYTERLAB_SETTINGS_DIR": settings,
        "JUPYTERLAB_WORKSPACES_DIR": base / "workspaces",
        "IPYTHONDIR": base / "ipython",
        "MPLCONFIGDIR": base / "mpl",
    }
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--IdentityProvider.token={token}"),
        *(f"--ServerApp.root_dir={root}", "--ServerApp.jpserver_extensions={'notebook': True}"),
        *("--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"),
    ]
    with (base / "jupyter.log").open("w") as log:
        environment = os.environ | {name: str(path) for name, path in private.items()}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            found = runtime / f"jpserver-{process.pid}.json"
            wait_until(lambda: _whole(found) or process.poll() is not None, 60, "the start of Jupyter")
            assert process.poll() is None, (base / "jupyter.log").read_text()
            yield Jupyter(json.loads(found.read_text())["url"], token, root)
        finally:
            process.terminate()
            process.wait(30)


def _whole(file: Path) -> bool:
    """Whether a JSON object was written to its end."""
    return file.exists() and file.read_text().rstrip().endswith("}")


def _write_setting(directory: Path, name: str, value: dict[str, object]) -> None:
    path = directory / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@dataclass
class Watched:
    """A page, and everything that went wrong in it; `known` describes what others are to blame for."""

    page: Page
    known: list[re.Pattern[str]] = field(default_factory=lambda: [NOTEBOOK_SCHEMA_ERROR])
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        self.page.on("console", lambda m: self.errors.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("websocket", lambda socket: self._is_near(socket.url))
        self.page.route("**/*", lambda route: route.continue_() if self._is_near(route.request.url) else route.abort())

    def _is_near(self, url: str) -> bool:
        parts = urlsplit(url)
        near = parts.scheme not in ("http", "https", "ws", "wss") or parts.hostname == "127.0.0.1"
        if not near:
            self.strangers.append(url)
        return near

    def run_cell(self, index: int) -> None:
        """Run one cell, as a person would: again if the page was not ready to pass it on to the kernel."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        for _ in range(20):
            cell.locator(".cm-content").click()
            self.page.keyboard.press("Control+Enter")
            with contextlib.suppress(PlaywrightTimeoutError):
                cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).wait_for(timeout=3000)
                return
        raise AssertionError(f"cell {index} did not run")

    def cell_errors(self) -> list[str]:
        """Return the tracebacks that the notebook shows."""
        errors = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
        warnings = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        return [*errors.all_inner_texts(), *warnings.all_inner_texts()]

    def unexpected(self) -> list[str]:
        """Everything that went wrong: requests to elsewhere, errors of the page and of its console."""
        found = [*self.strangers, *self.errors]
        return [line for line in found if not any(pattern.search(line) for pattern in self.known)]


@contextlib.contextmanager
def chromium() -> Iterator[Callable[[str], Watched]]:
    """Start Chromium; yields what opens a page in it."""
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_(url: str) -> Watched:
            watched = Watched(browser.new_page(viewport={"width": 1280, "height": 1700}))
            watched.watch()
            watched.page.goto(url, timeout=60_000)
            return watched

        yield open_
        browser.close()
