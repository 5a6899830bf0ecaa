"""Recording: channels into a Zarr v3 store, losslessly where they allow it, committed as it goes, and signed."""

from labhub.recording.proof import Proof, verify
from labhub.recording.recording import Recording, RecordingStatus

__all__ = ["Proof", "Recording", "RecordingStatus", "verify"]
