"""Heart rate from a photoplethysmogram, computed on the samples as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labhub.errors import LabHubError

WINDOW_SECONDS = 10.0
# The shortest interval between two beats that counts as real (150 beats per minute).
REFRACTORY_SECONDS = 0.4
# Beats whose prominence is below one standard deviation of the window are the second bump of a pulse (its dicrotic
# wave), not a beat.
PROMINENCE_IN_SD = 1.0


class HeartRate:
    """Median heart rate over the last ten seconds.

    Parameters
    ----------
    sample_rate : float
        Samples per second of the recording (in Hz).

    Raises
    ------
    LabHubError
        scipy is not installed.
    """

    def __init__(self, sample_rate: float) -> None:
        # Here, because importing it takes a second, which the first samples should not have to wait.
        try:
            from scipy.signal import find_peaks
        except ImportError:
            raise LabHubError("the demo finds heart beats with scipy: pip install 'labhub[demo]'") from None

        self._find_peaks = find_peaks
        self._sample_rate = sample_rate
        self._window = np.empty(0, dtype=np.float64)

    @property
    def window(self) -> npt.NDArray[np.float64]:
        """The samples that the rate is computed from, the oldest first, shape (n_samples,)."""
        return self._window

    def update(self, samples: npt.ArrayLike) -> float | None:
        """Take in new samples.

        Parameters
        ----------
        samples : array_like of shape (n_samples,)
            The samples that follow those of the last call.

        Returns
        -------
        float or None
            Beats per minute; None until the window shows three beats.
        """
        length = round(WINDOW_SECONDS * self._sample_rate)
        self._window = np.concatenate([self._window, np.ravel(samples)])[-length:]
        spread = float(self._window.std())
        if spread == 0.0:
            return None
        distance = max(1, round(REFRACTORY_SECONDS * self._sample_rate))
        beats, _ = self._find_peaks(self._window, distance=distance, prominence=PROMINENCE_IN_SD * spread)
        if len(beats) < 3:
            return None
        return float(60.0 * self._sample_rate / np.median(np.diff(beats)))
