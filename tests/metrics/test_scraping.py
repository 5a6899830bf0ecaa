"""Connections to the metrics that only half ask, or do not take the answer: they end, and others get their scrape."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from labhub.broker import BrokerService
from labhub.hub.metrics import serve
from labhub.hub.scraping import MAX_HEAD_NBYTES, Scraped, served
from tests.metrics.conftest import text

Wait = Callable[..., None]
FEW = 4
WHOLE = b"GET /metrics HTTP/1.0\r\n\r\n"


def says(environ: dict, start_response: Callable) -> list[bytes]:
    start_response("200 OK", [])
    return [b"all is well\n"]


@contextmanager
def a_server(app: Callable = says, patience: float = 60.0) -> Iterator[Scraped]:
    with served(app, "127.0.0.1", 0) as server:
        server.max_connections, server.patience = FEW, patience
        yield server


def opened(server: Scraped, stack: ExitStack, begin: bytes = b"GET /met") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.server_port), timeout=30))
    connection.sendall(begin)
    return connection


def ended(connection: socket.socket) -> bool:
    """Whether the other end has ended a connection without an answer."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_half_sent_requests_make_room_for_whole_ones(wait_until: Wait) -> None:
    with a_server() as server, ExitStack() as stack:
        half = [opened(server, stack) for _ in range(FEW)]
        wait_until(lambda: server.open == FEW)
        for _ in range(3):
            assert text(server.server_port) == "all is well\n"
        assert ended(half[0])  # the oldest had to go
        more = [opened(server, stack) for _ in range(3 * FEW)]
        wait_until(lambda: server.cut >= 3 * FEW)
        assert server.open <= FEW
        assert all(map(ended, half))
        assert text(server.server_port) == "all is well\n"
        more[-1].sendall(b"rics HTTP/1.0\r\n\r\n")  # whoever asks slowly, but asks
        assert more[-1].recv(1000).startswith(b"HTTP/1.0 200")


def test_a_request_that_does_not_come_in_time_ends() -> None:
    with a_server(patience=0.2) as server, ExitStack() as stack:
        for begin in (b"", b"GET", b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.0\r\nAccept: x\r\n"):
            assert ended(opened(server, stack, begin))


def test_a_request_that_comes_byte_by_byte_ends_in_time(wait_until: Wait) -> None:
    with a_server(patience=0.3) as server, ExitStack() as stack:
        slow = opened(server, stack)
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.02):
                try:
                    slow.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            wait_until(lambda: server.open == 1)
            wait_until(lambda: server.open == 0)
        finally:
            over.set()
            thread.join(10)


def test_a_request_that_never_ends_is_cut_off(wait_until: Wait) -> None:
    with a_server() as server, ExitStack() as stack:
        endless = opened(server, stack, b"GET / HTTP/1.0\r\n" + b"x: y\r\n" * 90)
        endless.sendall(b"x: " + b"y" * MAX_HEAD_NBYTES)
        wait_until(lambda: server.open == 0)


def test_who_does_not_take_the_answer_makes_room(wait_until: Wait) -> None:
    def says_much(environ: dict, start_response: Callable) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x" * (32 << 20)] if environ["PATH_INFO"] == "/much" else [b"all is well\n"]

    with a_server(says_much) as server, ExitStack() as stack:
        for _ in range(FEW):
            opened(server, stack, b"GET /much HTTP/1.0\r\n\r\n")
        wait_until(lambda: set(server._stages.values()) == {"taking the answer"} and server.open == FEW)
        assert text(server.server_port) == "all is well\n"
        assert server.cut == 1


def test_those_that_are_worked_for_are_left_alone(wait_until: Wait) -> None:
    go_on = threading.Event()

    def waits(environ: dict, start_response: Callable) -> list[bytes]:
        assert go_on.wait(30)
        return says(environ, start_response)

    with a_server(waits) as server, ExitStack() as stack:
        working = [opened(server, stack, WHOLE) for _ in range(FEW)]
        wait_until(lambda: list(server._stages.values()) == ["worked for"] * FEW)
        assert ended(opened(server, stack, WHOLE))
        assert (server.turned_away, server.cut) == (1, 0)
        go_on.set()
        assert all(c.recv(1000).startswith(b"HTTP/1.0 200") for c in working)


def test_the_end_waits_for_nobody(wait_until: Wait) -> None:
    with ExitStack() as stack:
        with a_server() as server:
            half = [opened(server, stack) for _ in range(FEW)]
            wait_until(lambda: server.open == FEW)
        assert all(map(ended, half))
    wait_until(lambda: not [t for t in threading.enumerate() if t.name.startswith("labhub")])


def test_no_open_file_is_told_and_passes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_server() as server:
        accept = server.socket.accept
        refusals = iter([errno.EMFILE] * 3)

        class Full:
            """A listening socket of a process that has no open file left, for a while."""

            def __getattr__(self, name: str) -> object:
                return getattr(listening, name)

            def accept(self) -> object:
                for number in refusals:
                    raise OSError(number, os.strerror(number))
                return accept()

        listening = server.socket
        monkeypatch.setattr(server, "socket", Full())
        assert text(server.server_port) == "all is well\n"
        assert server.turned_away == 3
    told = [r for r in caplog.records if getattr(r, "event", "") == "scrape_refused"]
    assert [r.levelno for r in told] == [logging.ERROR]
    assert "Too many open files" in told[0].getMessage()


def test_connections_are_counted_in_the_metrics_themselves(wait_until: Wait) -> None:
    with serve(BrokerService().look, "127.0.0.1", 0, 10) as port, ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        connection.sendall(b"GET")
        wait_until(lambda: "labhub_scrape_connections 2.0" in text(port))


def test_a_port_for_which_no_file_can_be_opened_is_told_so() -> None:
    code = """
import os, resource
from labhub.errors import SegmentSpaceError
from labhub.broker import BrokerService
from labhub.hub.metrics import serve
first = os.dup(0)
resource.setrlimit(resource.RLIMIT_NOFILE, (first, 4096))
try:
    with serve(None, "127.0.0.1", 0, 10):
        pass
except SegmentSpaceError as error:
    print(error)
"""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 100
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "metrics cannot be served on" in done.stdout, done.stderr
    assert "ulimit -n" in done.stdout
