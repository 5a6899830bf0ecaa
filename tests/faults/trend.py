"""What grows, and how surely: a robust line through samples."""

from __future__ import annotations

import mmap
import time
from collections import defaultdict
from pathlib import Path

import psutil
from scipy.stats import theilslopes


class Samples:
    """What processes and a directory take, again and again.

    Attributes
    ----------
    series : dict of (str, str) to list of (float, float)
        Time (in seconds) and amount, for each name and quantity: ``rss`` and ``shm`` in bytes, ``fds``, ``threads``.
    """

    def __init__(self) -> None:
        self.series: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def process(self, name: str, pid: int) -> None:
        """Take a sample of a process."""
        process = psutil.Process(pid)
        with process.oneshot():
            now = time.monotonic()
            found = {"rss": private_nbytes(pid), "fds": process.num_fds(), "threads": process.num_threads()}
        for quantity, amount in found.items():
            self.series[name, quantity].append((now, amount))

    def directory(self, name: str, path: Path) -> None:
        """Take a sample of what a directory holds."""
        nbytes = 0
        for file in path.rglob("*"):
            try:
                nbytes += file.lstat().st_blocks * 512
            except FileNotFoundError:
                continue  # withdrawn this moment
        self.series[name, "shm"].append((time.monotonic(), nbytes))

    def grown(self, name: str, quantity: str) -> tuple[float, float]:
        """How much something grew from the first to the last sample: at least, with 95 % confidence; and probably.

        By the median of the slopes between all pairs of samples (Theil-Sen), which single peaks do not move.
        """
        times, amounts = zip(*self.series[name, quantity], strict=True)
        slope, _, low, _ = theilslopes(amounts, times)
        return low * (times[-1] - times[0]), slope * (times[-1] - times[0])


def private_nbytes(pid: int) -> int:
    """Memory of a process without what it shares (in bytes): the pages of a ring count for all who touched them."""
    resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    return (int(resident) - int(shared)) * mmap.PAGESIZE
