"""Directories of its own for each test, and proof that it left nothing in them."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VARIABLES = {
    "shm": "LABHUB_SHM_DIR",
    "run": "LABHUB_RUNTIME_DIR",
    "data": "LABHUB_DATA_DIR",
    "config": "LABHUB_CONFIG_DIR",
}


CHILD_PATIENCE = 60.0
"""How long a ``with Popen(...)`` waits for its child at its end (in seconds)."""


def pytest_configure() -> None:
    """Let Ctrl-C be heard by the suite and its children: below nohup, and in a script's background, it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_endless_children() -> Iterator[None]:
    """Kill the child of a ``with Popen(...)`` that fails, or whose child does not end: the original waits for ever."""
    leave = subprocess.Popen.__exit__

    def kill_and_leave(process: subprocess.Popen[bytes], kind: type[BaseException] | None, *error: object) -> None:
        late = False
        if kind is not None:
            process.kill()
        elif process.stdin is None:  # else closing it is what ends the child
            late = not ended(process)
        leave(process, kind, *error)  # type: ignore[arg-type]
        assert not late, f"{process.args} did not end within {CHILD_PATIENCE:g} s"

    def ended(process: subprocess.Popen[bytes]) -> bool:
        try:
            process.wait(CHILD_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return False
        return True

    subprocess.Popen.__exit__ = kill_and_leave  # type: ignore[method-assign, assignment]
    yield
    subprocess.Popen.__exit__ = leave  # type: ignore[method-assign]


VERSIONS = ("schema", "datablock", "recording", "replaying", "cli", "magics", "property")
"""Rooms whose tests are marked ``versions``: what they do depends on other packages more than elsewhere."""
SLOW = (
    *("test_interrupts.py", "test_kernels.py", "test_background.py", "test_tracebacks.py", "test_notebooks.py"),
    *("test_top.py", "test_tail.py", "test_key.py", "test_bridge.py", "test_killed_at_each_step.py"),
    *("test_interrupted_batches.py", "test_interrupted_slots.py"),
)
"""Files in them that take long, and whose subject is not what another package does."""


def _depends_on_versions(path: Path) -> bool:
    parts = path.relative_to(Path(__file__).parent).parts
    return parts[:1] == () or (parts[0] in VERSIONS and parts[-1] not in SLOW)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests for `make test-lowest` and `make test-newest`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and _depends_on_versions(item.path):
            item.add_marker("versions")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where only those tests run, do not even import the others, which need more packages."""
    inside = collection_path.is_relative_to(Path(__file__).parent)
    wanted = not inside or collection_path.name == "__init__.py" or _depends_on_versions(collection_path)
    return None if wanted or config.option.markexpr != "versions" else True


@contextmanager
def private_directories(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Set segment, runtime, key and settings directories; fail if a file is left in the first two."""
    # On tmpfs, where segments live; one test must never see another's.
    base = Path(tempfile.mkdtemp(prefix="labhub-test-", dir="/dev/shm"))
    for name, variable in VARIABLES.items():
        (base / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(base / name))
    yield base
    left = [str(p.relative_to(base)) for d in ("shm", "run") for p in (base / d).rglob("*") if not p.is_dir()]
    shutil.rmtree(base)
    assert not left, f"the test left {left}"


@pytest.fixture(autouse=True)
def private_dirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test directories of its own."""
    with private_directories(monkeypatch) as base:
        yield base


class Failures(logging.Handler):
    """What ended a thread of labhub's, or one of the things it looks after, without being foreseen."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.expected = False

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") in ("thread_failed", "item_failed"):
            self.found.append(f"{record.event}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def unforeseen() -> Iterator[Failures]:
    """Fail a test in which a thread of labhub's met an error that nobody had foreseen: labhub logs it and goes on.

    A test that provokes such an error uses `failures`.
    """
    logger, handler = logging.getLogger("labhub.tasks"), Failures()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    assert handler.expected or not handler.found, handler.found


@pytest.fixture
def failures(unforeseen: Failures) -> list[str]:
    """Return the list of errors that nobody had foreseen; the test is to look at them."""
    unforeseen.expected = True
    return unforeseen.found


def wait_until(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
    """Wait until `condition()` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.005)  # a poll of a condition with a deadline, not a guess


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """Return `wait_until`."""
    return wait_until
