"""A recorder in a process of its own, and slots whose contents can be checked.

``python -m tests.faults.recorder STORE`` says ``ready``, records until it reads ``stop`` or cannot go on, says what
became of it, all as JSON, and stays until its input is closed. After ``limit N`` no file of it grows beyond N bytes.
"""

from __future__ import annotations

import json
import resource
import select
import sys

import numpy as np

import labhub
from labhub.errors import RecordingError
from labhub.recording import Recording

CHANNEL = "daq"
SLOT = np.dtype([("seq", "<u8"), ("check", "<u8")])
MIX = np.uint64(0x9E3779B97F4A7C15)
LOOK_INTERVAL = 0.02


def slots(first: int, count: int) -> np.ndarray:
    """Return the slots that belong to the seqs from `first` on."""
    found = np.empty(count, SLOT)
    found["seq"] = np.arange(first, first + count)
    found["check"] = found["seq"] * MIX
    return found


def heard() -> list[str]:
    """Return the words of a line, if one comes within a moment."""
    ready, _, _ = select.select([sys.stdin], [], [], LOOK_INTERVAL)
    return sys.stdin.readline().split() if ready else []


def say(word: object) -> None:
    """Tell the test."""
    print(json.dumps(word), flush=True)


def obey(recording: Recording) -> None:
    """Wait for the word to stop, or the end of the recording."""
    while recording.running:
        match heard():
            case ["limit", nbytes]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(nbytes), int(nbytes)))
            case ["stop"]:
                return


def record(store: str) -> None:
    """Record, and tell what became of it."""
    lost, errno = 0, 0
    with labhub.connect() as hub:
        recording = hub.record(CHANNEL, store=store)
        say("ready")
        obey(recording)
        try:
            recording.stop()
        except RecordingError as error:
            lost, errno = error.lost, getattr(error.__cause__, "errno", 0)
        status = recording.status
    say({"read": status.n_slots, "stored": status.stored, "missing": status.missing, "lost": lost, "errno": errno})


if __name__ == "__main__":
    record(sys.argv[1])
    sys.stdin.read()  # a disk of its own goes away with this process; it is looked at before
