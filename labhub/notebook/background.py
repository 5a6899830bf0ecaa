"""Producers in the background: each runs one cell in a kernel of its own, which ends with the kernel that started it.

A kernel, because it survives the notebook's Interrupt, understands whole cells (magics, ``await``) and dies with its
parent. One thread per producer owns its kernel manager and client; the others only set its events.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

from labhub import runtime
from labhub.bound import Bound
from labhub.errors import LabHubError, TimeoutExpired
from labhub.names import check_name
from labhub.tasks import Task, words
from labhub.words import did_you_mean

State = Literal["starting", "running", "ended", "failed", "stopped"]

START_TIMEOUT = 60.0
# How long a cell may take to leave its `with` blocks when it is interrupted, and its kernel to end (in seconds).
INTERRUPT_TIMEOUT = 2.0
SHUTDOWN_TIMEOUT = 3.0
# How often the thread of a producer looks whether it shall stop, or its kernel has died (in seconds).
LOOK_INTERVAL = 0.1
LOG_NBYTES = 1024 * 1024
"""A log is cut to its newer half when it grows beyond this (in bytes): it may be on tmpfs."""
SOCKET_PATH_LENGTH = 107
"""Longest path of a Unix socket."""

ANSI = re.compile(r"\x1b\[[0-9;]*m")


class BackgroundProducer(Bound):
    """A cell that runs in a kernel of its own. Made by ``%%hub_producer``.

    Attributes
    ----------
    name : str
        Its name.
    cell : str
        What it runs, as it was written.
    state : {"starting", "running", "ended", "failed", "stopped"}
        ``"ended"`` when the cell came to its end, ``"failed"`` when it raised or its process died, ``"stopped"`` when
        it was told to stop.
    pid : int
        Its process; 0 before that is there.
    error : str
        Why it failed, in one line; else empty.
    log_path : Path
        What it printed.
    """

    def __init__(self, name: str, cell: str, directory: Path, stem: Path) -> None:
        self.name = name
        self.cell = cell
        self.state: State = "starting"
        self.pid = 0
        self.error = ""
        self.log_path = directory / f"{name}.log"
        self._traceback: list[str] = []
        self._directory = directory
        self._began = time.monotonic()
        self._ended: float | None = None
        self._stop = threading.Event()
        self._cwd = os.getcwd()
        self._path = list(sys.path)
        self._stem = stem
        self.log_path.write_bytes(b"")
        self._thread = Task(self._run, f"labhub-producer-{name}", failed=lambda error: self._fail(words(error)))
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether its cell has come to an end, in whatever way."""
        return self.state not in ("starting", "running")

    @property
    def seconds(self) -> float:
        """For how long it has been running, or ran (in seconds)."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def traceback(self) -> str:
        """The traceback of the cell, without colours; empty if it did not fail."""
        return ANSI.sub("", "\n".join(self._traceback))

    def log(self, lines: int = 50) -> str:
        """Return the last lines that it printed."""
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until its kernel has ended (timeout in seconds; None waits for ever); whether it has."""
        return self._thread.wait(timeout)

    def request_stop(self) -> None:
        """Let it stop, without waiting for that."""
        self._stop.set()

    def stop(self) -> None:
        """Interrupt its cell, so that its ``with`` blocks close, then end its kernel. Twice is harmless.

        Raises
        ------
        TimeoutExpired
            It could not even be killed.
        """
        self.request_stop()
        if self.wait(INTERRUPT_TIMEOUT + SHUTDOWN_TIMEOUT + 1.0):
            return
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        if not self.wait(INTERRUPT_TIMEOUT):
            raise TimeoutExpired(f"producer {self.name!r}, pid {self.pid}, does not end")

    # ------------------------------------------------------------------------------------------- in its own thread

    def _run(self) -> None:
        loop = ensure_event_loop()  # in which jupyter_client waits; it never closes one by itself
        try:
            with self.log_path.open("ab", buffering=0) as log, self._kernel(log) as (manager, client):
                self._follow_cell(manager, client)
        except Exception as error:  # noqa: BLE001  # the thread's last word, which the handle shows
            self._fail(f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            loop.close()
        self._end("ended")

    def _fail(self, error: str) -> None:
        if not self.over and not self._stop.is_set():
            self.error = error
        self._end("failed")

    def _end(self, state: State) -> None:
        """Note how it ended, the first time; whoever was told to stop did not fail."""
        if not self.over:
            self._ended = time.monotonic()
            self.state = "stopped" if self._stop.is_set() else state

    @contextlib.contextmanager
    def _kernel(self, log: Any) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
        """Start a kernel and a client; end both."""
        manager = KernelManager(
            kernel_spec_manager=_ThisPython(),
            transport="ipc",
            ip=str(self._stem),
            connection_file=f"{self._stem}.json",
            shutdown_wait_time=SHUTDOWN_TIMEOUT,
        )
        # Its own session: an Interrupt of the notebook goes to the notebook's process group only.
        manager.start_kernel(cwd=self._cwd, stdout=log, stderr=log)
        try:
            self.pid = getattr(manager.provisioner, "pid", None) or 0
            client = manager.blocking_client()
            try:
                client.start_channels(stdin=False)
                client.wait_for_ready(timeout=START_TIMEOUT)
                yield manager, client
            finally:
                client.stop_channels()
                client.context.destroy(linger=0)  # else its __del__ does, in a thread that is somebody else's
        finally:
            manager.shutdown_kernel()

    def _follow_cell(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        watch = "__import__('labhub.notebook.parent_watch', fromlist=['_'])"
        # Expressions, so that the cell finds no name that it did not make itself.
        for preamble in (
            f"__import__('sys').path.__setitem__(slice(None), {self._path!r})",
            f"{watch}.follow_parent({os.getpid()}, {str(self._directory)!r})",
        ):
            client.execute(preamble, silent=True, store_history=False)
        if self._stop.is_set():
            return
        request = client.execute(self.cell, store_history=True, allow_stdin=False)
        deadline: float | None = None
        while True:
            # Not before the cell runs: an idle kernel ignores an interrupt.
            if self._stop.is_set() and deadline is None and self.state == "running":
                manager.interrupt_kernel()
                deadline = time.monotonic() + INTERRUPT_TIMEOUT
            if deadline is not None and time.monotonic() > deadline:
                return
            heard = self._listen(client, LOOK_INTERVAL)
            # The reply, because a flooded iopub channel may drop the message that says the same.
            if (reply := _reply(client, request)) is not None:
                while self._listen(client, 0.0):
                    pass
                self._conclude(reply)
                return
            if not heard and not manager.is_alive():
                self._fail("its process died")
                return
            with contextlib.suppress(OSError):  # somebody has removed it, or the disk is full: the cell goes on
                self._trim_log()

    def _listen(self, client: BlockingKernelClient, timeout: float) -> bool:
        """Note one message of the kernel; whether there was one. What it prints is in the log already."""
        try:
            message = client.get_iopub_msg(timeout=timeout)
        except queue.Empty:
            return False
        match message["header"]["msg_type"]:
            case "execute_input":
                self.state = "running"
            case "execute_result" | "display_data":
                self._write(message["content"]["data"].get("text/plain", "") + "\n")
        return True

    def _conclude(self, reply: dict[str, Any]) -> None:
        if reply["status"] == "error" and not self._stop.is_set():
            self._traceback = list(reply["traceback"])
            self._write(self.traceback + "\n")
            self._fail(f"{reply['ename']}: {reply['evalue']}".splitlines()[0])
        self._end("ended")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError), self.log_path.open("ab") as log:  # as for `_trim_log`
            log.write(text.encode(errors="replace"))

    def _trim_log(self) -> None:
        """Keep the newer half of a log that is too long; in place, because the kernel appends to this very file."""
        if self.log_path.stat().st_size <= LOG_NBYTES:
            return
        with self.log_path.open("r+b") as log:
            log.seek(-LOG_NBYTES // 2, os.SEEK_END)
            kept = log.read()
            log.seek(0)
            log.truncate(log.write(kept[kept.find(b"\n") + 1 :]))

    def _instead(self) -> str:
        return "it is stopped by the notebook that started it"

    def __repr__(self) -> str:
        if self.state == "failed":
            return f"BackgroundProducer({self.name!r}, failed: {self.error})"
        return f"BackgroundProducer({self.name!r}, {self.state})"


class BackgroundProducers:
    """The background producers of this kernel, by name. All end with it."""

    def __init__(self) -> None:
        self._producers: dict[str, BackgroundProducer] = {}
        self._count = 0
        self._directory: Path | None = None
        self._sockets: Path | None = None

    def __len__(self) -> int:
        return len(self._producers)

    def __iter__(self) -> Iterator[BackgroundProducer]:
        return iter(self._producers.values())

    def __getitem__(self, name: str) -> BackgroundProducer:
        try:
            return self._producers[name]
        except KeyError:
            hint = did_you_mean(name, self._producers)
            raise LabHubError(f"no background producer is called {name!r}; {hint or 'there is none'}") from None

    def start(self, name: str, cell: str, restart: bool = False) -> BackgroundProducer:
        """Run a cell in the background.

        Parameters
        ----------
        name : str
            What to call it. One that has ended is replaced.
        cell : str
            Python, with everything that a notebook's cell may have.
        restart : bool
            Stop the one of this name first if it is running.

        Raises
        ------
        LabHubError
            One of this name is running.
        InvalidName
        """
        check_name(name, "background producer")
        earlier = self._producers.get(name)
        if earlier is not None:
            if not earlier.over and not restart:
                raise LabHubError(f"the background producer {name!r} is running; --restart replaces it")
            earlier.stop()
        directory = self._prepare()
        self._count += 1
        stem = (self._sockets or directory) / f"k{self._count}"
        producer = self._producers[name] = BackgroundProducer(name, cell, directory, stem)
        return producer

    def restart(self, name: str) -> BackgroundProducer:
        """Run the same cell again, after stopping it if need be."""
        return self.start(name, self[name].cell, restart=True)

    def stop(self) -> None:
        """Stop all of them, at the same time."""
        for producer in self:
            producer.request_stop()
        with contextlib.ExitStack() as stack:
            for producer in self:
                stack.callback(producer.stop)

    def close(self) -> None:
        """Stop all of them, and remove their logs."""
        try:
            self.stop()
        finally:
            self._producers.clear()
            for directory in (self._directory, self._sockets):
                if directory is not None:
                    shutil.rmtree(directory, ignore_errors=True)
            self._directory = self._sockets = None

    def _prepare(self) -> Path:
        """Return the directory of this kernel's logs, connection files and sockets; it is made if needed."""
        if self._directory is None:
            remove_leftovers()
            self._directory = runtime.kernel_directory()
            self._directory.mkdir(mode=0o700, exist_ok=True)
            if len(str(self._directory / "k1000-5")) > SOCKET_PATH_LENGTH:
                self._sockets = runtime.socket_directory()
        return self._directory


def remove_leftovers() -> None:
    """Remove the files of kernels that were killed."""
    for directory in runtime.abandoned_directories():
        shutil.rmtree(directory, ignore_errors=True)


class _ThisPython(KernelSpecManager):
    """Knows one kernel: this very Python, whatever a kernel specification of the user's says."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        # What it prints also goes to its own standard output, which is the log.
        quiet = "--IPKernelApp.quiet=False"
        # Else the debugger warns in every log, as in any kernel specification of ipykernel's own.
        python = [sys.executable, "-X", "frozen_modules=off"]
        command = [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}", quiet]
        return KernelSpec(argv=command, display_name="labhub", language="python")


def _reply(client: BlockingKernelClient, request: str) -> dict[str, Any] | None:
    """Return what the kernel answers to a request; None if it has not answered yet."""
    try:
        message = client.get_shell_msg(timeout=0.0)
    except queue.Empty:
        return None
    if message["parent_header"].get("msg_id") != request:
        return None
    content: dict[str, Any] = message["content"]
    return content
