"""A Jupyter server on loopback, and a browser that is watched: no request leaves this machine, no error is missed."""

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
import pytest

from labhub.hub import stop_broker

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]
# Notebook 7.6 raises this by itself, on an empty notebook, too.
NOTEBOOK_SCHEMA_ERROR = "Cannot read properties of undefined (reading 'schema')"
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

try:
    from playwright.sync_api import Page, sync_playwright
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
except ModuleNotFoundError:
    sync_playwright = None  # type: ignore[assignment]


@pytest.fixture(scope="session", autouse=True)
def browser_here() -> None:
    """Skip, and say what to install, where there is no browser."""
    if sync_playwright is None:
        pytest.skip("the browser tests need playwright: pip install playwright")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip("the browser tests need Chromium: apt-get install chromium")


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


@pytest.fixture
def jupyter(private_dirs: Path, wait_until: Callable[..., None]) -> Iterator[Callable[..., Jupyter]]:
    """Start Jupyter with JupyterLab and Notebook 7, in directories of its own; its kernels see the test's broker."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(served(private_dirs, wait_until, **options))
    with contextlib.suppress(LookupError, ConnectionError):
        stop_broker()


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
            wait_until(lambda: found.exists() or process.poll() is not None, 60, "the start of Jupyter")
            assert process.poll() is None, (base / "jupyter.log").read_text()
            yield Jupyter(json.loads(found.read_text())["url"], token, root)
        finally:
            process.terminate()
            process.wait(30)


def _write_setting(directory: Path, name: str, value: dict[str, object]) -> None:
    path = directory / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@dataclass
class Watched:
    """A page, and everything that went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        self.page.on("console", lambda m: self.errors.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("request", lambda request: self._check(request.url))

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.strangers.append(url)

    def run_cell(self, index: int) -> None:
        """Run one cell, as a person would: again if the page was not ready to pass it on to the kernel."""
        cell = self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        for _ in range(20):
            cell.locator(".cm-content").click()
            self.page.keyboard.press("Control+Enter")
            with contextlib.suppress(PlaywrightTimeoutError):
                cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[[*\d]+\]")).wait_for(timeout=3000)
                return
        pytest.fail(f"cell {index} did not run")

    def cell_errors(self) -> list[str]:
        """Return the tracebacks that the notebook shows."""
        errors = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']")
        warnings = self.page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']")
        return [*errors.all_inner_texts(), *warnings.all_inner_texts()]


@pytest.fixture
def open_page() -> Iterator[Callable[[str], Watched]]:
    """Open a page in Chromium; at the end nothing may have gone wrong in it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened: list[Watched] = []

        def open_(url: str) -> Watched:
            page = browser.new_page(viewport={"width": 1280, "height": 1700})
            watched = Watched(page)
            watched.watch()
            opened.append(watched)
            page.goto(url, timeout=60_000)
            return watched

        yield open_
        for watched in opened:
            assert not watched.strangers
            assert not [e for e in watched.errors if NOTEBOOK_SCHEMA_ERROR not in e]
        browser.close()


@pytest.fixture
def screenshots() -> Path:
    """Where pictures for people go."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
