"""Commands that run until somebody has had enough."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self


class Ending:
    """While inside, the first Ctrl-C or SIGTERM asks for an end in order; the second one interrupts.

    Parameters
    ----------
    *numbers : signal.Signals
        What asks, if it is not these two.
    """

    asked = False

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers or (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in self._numbers}
        return self

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
