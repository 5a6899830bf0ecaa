"""The HTTP server of the metrics: a few connections at once, each with its time, whoever opens them."""

from __future__ import annotations

import errno
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from labhub.logs import event
from labhub.tasks import Task, report

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
"""So many connections may be open. One more cuts off the oldest that is not being worked for."""
PATIENCE = 5.0
"""How long a client may take to send its whole request, and then to take the answer (each in seconds)."""
MAX_HEAD_NBYTES = 32 * 1024
"""Longest request, line and headers together."""
PAUSE = 0.2
"""How long the server waits when no connection can be accepted (in seconds)."""
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

SENDING, WORKED_FOR, TAKING = "sending its request", "worked for", "taking the answer"


@contextmanager
def served(app: WSGIApplication, address: str, port: int) -> Iterator[Scraped]:
    """Serve an application in threads of their own; leaving the block ends all connections.

    Raises
    ------
    OSError
        It cannot listen there.
    """
    server = Scraped(app, address, port)
    thread = Task(lambda: server.serve_forever(PAUSE), "labhub-metrics")
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.wait()
        server.cut_all()


class Scraped(ThreadingMixIn, WSGIServer):
    """A threading HTTP server whose connections are few, and end.

    Attributes
    ----------
    cut : int
        Connections that were cut off to make room for others.
    turned_away : int
        Connections for which there was no room, not even so, or no open file.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, app: WSGIApplication, address: str, port: int) -> None:
        self.address_family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        self.max_connections = MAX_CONNECTIONS
        self.patience = PATIENCE
        self.cut = 0
        self.turned_away = 0
        self._stages: dict[socket.socket, str] = {}  # in the order in which they came
        self._lock = threading.Lock()
        self._full = False
        super().__init__((address, port), Handler)
        self.set_app(self._staged(app))

    def server_bind(self) -> None:
        """Listen, without asking a name server who this machine is, as `http.server` would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def _staged(self, app: WSGIApplication) -> WSGIApplication:
        def noted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            connection = environ["labhub.connection"]
            self.note(connection, WORKED_FOR)
            try:
                answer = app(environ, start_response)
            except Exception as error:
                report("item_failed", error, thread="labhub-scrape", item="a scrape")
                raise
            self.note(connection, TAKING)
            return answer

        return noted

    def note(self, connection: socket.socket, stage: str) -> None:
        """Note what a connection is doing."""
        with self._lock:
            if connection in self._stages:
                self._stages[connection] = stage

    @property
    def open(self) -> int:
        """How many connections are open."""
        with self._lock:
            return len(self._stages)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; where no file can be opened, say so once, and wait for a moment."""
        try:
            accepted = super().get_request()
        except OSError as error:
            if error.errno in FULL:
                self.turned_away += 1
                if not self._full:
                    self._full = True
                    facts = event("scrape_refused", reason=error.strerror)
                    logger.error("nobody can scrape the metrics: %s", error.strerror, extra=facts)
                if not self._cut_one():
                    time.sleep(PAUSE)  # in this thread, which has nothing else to do
            raise
        self._full = False
        return accepted

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Make room for a connection; whether there is any."""
        if self.open >= self.max_connections and not self._cut_one():
            self.turned_away += 1
            return False
        with self._lock:
            self._stages[request] = SENDING
        return True

    def _cut_one(self) -> bool:
        """Cut off the oldest connection that is not worked for, first of those without a request; whether one was."""
        with self._lock:
            for stage in (SENDING, TAKING):
                for connection, at in self._stages.items():
                    if at == stage:
                        self._end(connection)
                        self.cut += 1
                        return True
        return False

    def _end(self, connection: socket.socket) -> None:
        """End a connection, which its thread notices; it counts no more."""
        del self._stages[connection]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end was faster
            return

    def cut_all(self) -> None:
        """End all connections."""
        with self._lock:
            for connection in list(self._stages):
                self._end(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        Task(lambda: self.process_request_thread(request, client_address), "labhub-scrape").start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and count it no more."""
        with self._lock:
            self._stages.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what failed; a client that goes, or takes its time, is no failure."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError | ValueError):
            report("item_failed", error, thread="labhub-scrape", item="a scrape")


class Handler(WSGIRequestHandler):
    """One request, of a client that has to send it in time."""

    server: Scraped

    def setup(self) -> None:
        """Read through a head that is bounded in time and size."""
        super().setup()
        head = _Head(self.connection, self.server.patience)
        self.rfile = io.BufferedReader(head)

    def get_environ(self) -> dict[str, Any]:
        """Tell the application which connection it is; its request is there now."""
        self.connection.settimeout(self.server.patience)
        return super().get_environ() | {"labhub.connection": self.connection}

    def get_stderr(self) -> Any:
        """Print nothing: what fails is logged."""
        return io.StringIO()

    def log_message(self, *_: object) -> None:
        """Log nothing: whoever scrapes does so every few seconds."""


class _Head(io.RawIOBase):
    """What comes on a connection, until it is too much or too late: then to read it raises, and the connection ends."""

    def __init__(self, connection: socket.socket, patience: float) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + patience
        self._left = MAX_HEAD_NBYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not come in time")
        if not self._left:
            raise ConnectionAbortedError("the request is too long")
        self._connection.settimeout(left)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count
