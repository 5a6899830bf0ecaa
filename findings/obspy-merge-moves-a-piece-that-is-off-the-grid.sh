#!/usr/bin/env bash
# Joining two pieces in ObsPy moves the second one to the sample grid of the first.
#
# Guess: Stream.merge keeps a piece apart whose samples lie between those of the other one, or resamples it, or says
# so.
# Seen: Two pieces at 1 Hz, the second 0.4 s off the grid: the merged trace has the second one's samples 0.4 s too
# early, and no sign of it.
# labhub: A recorder that was restarted in the middle of a run gives such pieces. labhub keeps a time for each slot;
# align on those instead of merging.
# Versions: obspy==1.5.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'obspy==1.5.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from obspy import Stream, Trace, UTCDateTime

first = Trace(np.arange(3, dtype="i4"), {"starttime": UTCDateTime(0), "sampling_rate": 1.0})
second = Trace(np.arange(10, 13, dtype="i4"), {"starttime": UTCDateTime(3.4), "sampling_rate": 1.0})
measured = float(second.stats.starttime)
stream = Stream([first, second]).merge()
times = dict(zip(stream[0].data.tolist(), stream[0].times("timestamp").tolist()))
print("sample 10 was taken at", measured, "s; merged it is at", times[10], "s;", len(stream), "trace")
assert len(stream) == 1 and times[10] == 3.0, "obspy has changed"
PY
