"""An end to an iteration after so many slots, and a progress bar."""

from __future__ import annotations

import weakref
from typing import Any

from labhub.arguments import checked_flag
from labhub.datablock.batch import Batch
from labhub.datablock.config import checked_count


class Quota:
    """How much of an iteration is left, and the bar that shows it.

    Parameters
    ----------
    total : int, optional
        End after so many slots.
    progress : bool
        Show a bar: in a notebook a widget, else a line on the standard error output.
    title : str
        What stands before the bar.

    Attributes
    ----------
    left : int or None
        How many slots are left; None without an end.

    Raises
    ------
    InvalidArgument
        If `total` is not a whole number of at least 1.
    """

    def __init__(self, total: int | None = None, progress: bool = False, title: str = "") -> None:
        self.left = None if total is None else checked_count("total", total)
        checked_flag("progress", progress)
        self._lost = 0
        self._bar: Any = None
        if progress:
            self._bar = _bar(total, title)
            # For an iterator that is dropped before its end, as a loop that was interrupted in its body does.
            weakref.finalize(self, self._bar.close)

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left == 0

    def limit(self, count: int) -> int:
        """Return as much of `count` as is left."""
        return count if self.left is None else min(count, self.left)

    def note(self, batch: Batch) -> None:
        """Count the slots of a batch."""
        if self.left is not None:
            self.left = max(0, self.left - len(batch))
        if self._bar is not None:
            if batch.lost:
                self._lost += batch.lost
                self._bar.set_postfix(lost=self._lost, refresh=False)
            self._bar.update(len(batch))
        if self.spent:
            self.close()

    def close(self) -> None:
        """Close the bar, which stays as it is."""
        if self._bar is not None:
            self._bar.close()


def _bar(total: int | None, title: str) -> Any:
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        """A bar without tqdm's thread, which would outlive it."""

        monitor_interval = 0

    return Bar(total=total, desc=title, unit=" slots")
