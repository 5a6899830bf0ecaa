"""Commands that run until somebody has had enough."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class Ending:
    """While inside, the first Ctrl-C or SIGTERM asks for an end in order; the second one interrupts."""

    asked = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
