"""The photoplethysmograms that come with the HeartPy package, read without importing it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labhub.errors import LabHubError

# HeartPy's own documentation gives 100 Hz for data.csv, the one recording without a timer.
DATA_CSV_RATE = 100.0


@dataclass(frozen=True)
class Recording:
    """A recorded signal.

    Attributes
    ----------
    name : str
        The file it was read from.
    samples : array of shape (n_samples,), int16
        The signal (in units of the recording's analogue-to-digital converter).
    sample_rate : float
        Samples per second (in Hz): the mean rate of the recording's own timer where there is one.
    """

    name: str
    samples: npt.NDArray[np.int16]
    sample_rate: float

    @property
    def seconds(self) -> float:
        """How long the recording lasts (in seconds)."""
        return len(self.samples) / self.sample_rate


def data_directory() -> Path:
    """Find the directory of HeartPy's recordings.

    Raises
    ------
    LabHubError
        HeartPy is not installed.
    """
    spec = importlib.util.find_spec("heartpy")
    if spec is None or not spec.submodule_search_locations:
        raise LabHubError(
            "the demo plays a recorded heartbeat that comes with the package heartpy, which is not installed: "
            "pip install 'labhub[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def load(name: str = "data3.csv") -> Recording:
    """Read one of the three recordings.

    Parameters
    ----------
    name : {"data.csv", "data2.csv", "data3.csv"}
        25 seconds at 100 Hz without a timer; two minutes with a timer in milliseconds; eleven minutes with the date
        and time of each sample.

    Returns
    -------
    Recording
        The samples and their true rate.

    Raises
    ------
    LabHubError
        HeartPy is not installed, or its recordings are not those that this module knows.
    """
    path = data_directory() / name
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        if "," not in lines[0]:
            return Recording(name, np.array(lines, dtype=np.int16), DATA_CSV_RATE)
        seconds, values = _timed(*lines)
        return Recording(name, values, (len(values) - 1) / float(seconds[-1] - seconds[0]))
    except (OSError, ValueError, IndexError) as error:
        raise LabHubError(f"cannot read the recording {path}: {error}") from error


def _timed(header: str, *rows: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int16]]:
    stamps, values = zip(*(row.split(",") for row in rows), strict=True)
    if header.startswith("timer"):
        seconds = np.array(stamps, dtype=np.float64) / 1e3
    else:
        seconds = np.array(stamps, dtype="datetime64[us]").astype(np.int64) / 1e6
    return seconds, np.array(values, dtype=np.float64).astype(np.int16)
