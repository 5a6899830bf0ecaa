#!/usr/bin/env bash
# ObsPy writes integer counts into SAC as float32, without a word.
#
# Guess: Stream.write refuses data that the format cannot hold, as it does for SEGY, or warns.
# Seen: 16777217 counts come back as 16777216.0: every count above 2**24 is rounded, and the dtype is another one.
# labhub: 24-bit digitisers reach that range. An export of a labhub channel to SAC needs a look at the largest count
# first; MiniSEED keeps int32.
# Versions: obspy==1.5.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'obspy==1.5.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
import obspy

counts = np.array([16777217, 1, 2], dtype="i4")
read = {}
for form in ("SAC", "MSEED"):
    obspy.Trace(counts.copy(), {"sampling_rate": 100}).write("run." + form, format=form)
    trace = obspy.read("run." + form)[0]
    read[form] = (str(trace.data.dtype), trace.data.tolist())
print(read)
assert read["MSEED"] == ("int32", counts.tolist())
assert read["SAC"] == ("float32", [16777216.0, 1.0, 2.0]), "obspy has changed"
PY
