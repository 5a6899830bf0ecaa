"""The full-screen form of ``labhub top``: the terminal is as it was afterwards, however it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from labhub.cli.table import fitted

if TYPE_CHECKING:
    from labhub.cli.sampling import Sampler

# Signals that would end the process with the terminal left as it is.
ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def watch(sampler: Sampler, interval: float) -> None:
    """Show sample after sample on the whole screen, until q or Ctrl-C."""
    console = Console()
    with _tidy_ending(), _keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            due = time.monotonic() + interval
            live.update(fitted(sampler.look(), console), refresh=True)
            if keys.q_before(due):
                return


class Keys:
    """The keyboard, or nothing where the standard input is not one."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def q_before(self, due: float) -> bool:
        """Wait until `due` (monotonic, in seconds); whether q was pressed before."""
        while (left := due - time.monotonic()) > 0:
            watched = [] if self._descriptor is None else [self._descriptor]
            ready, _, _ = select.select(watched, [], [], left)
            if not ready or self._descriptor is None:
                continue
            pressed = os.read(self._descriptor, 64)
            if not pressed:  # the terminal is gone
                self._descriptor = None
            elif b"q" in pressed or b"Q" in pressed:
                return True
        return False


@contextmanager
def _keys() -> Iterator[Keys]:
    """Read single keys, unseen; Ctrl-C stays what it is."""
    if not sys.stdin.isatty():
        yield Keys(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _tidy_ending() -> Iterator[None]:
    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
