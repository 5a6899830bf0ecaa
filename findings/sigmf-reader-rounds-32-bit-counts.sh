#!/usr/bin/env bash
# The SigMF reader turns 32-bit integers into float32, also when it is told not to scale them.
#
# Guess: With autoscale=False a recording of type ri32_le gives the integers that are in the file.
# Seen: It gives float32: 16777217 reads as 16777216. With scaling (unless told otherwise) 1 reads as 4.66e-10.
# labhub: Counters and timestamps are 32-bit integers in labhub channels. Read the data file with numpy, by the
# datatype in its metadata.
# Versions: SigMF==1.14.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'SigMF==1.14.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from sigmf import SigMFFile

np.array([1, 2, 16777217], dtype="<i4").tofile("run.sigmf-data")
facts = {"core:datatype": "ri32_le", "core:sample_rate": 48000, "core:version": "1.0.0"}
read = {}
for scaled in (True, False):
    recording = SigMFFile(data_file="run.sigmf-data", global_info=dict(facts), autoscale=scaled)
    recording.add_capture(0)
    read[scaled] = recording.read_samples()
print("autoscale=False:", read[False].astype(float).tolist(), read[False].dtype, " autoscale:", read[True].tolist())
assert read[False].dtype == np.float32 and float(read[False][2]) == 16777216.0, "sigmf has changed"
assert abs(float(read[True][0]) - 2.0**-31) < 1e-15
PY
