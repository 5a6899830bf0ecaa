#!/usr/bin/env bash
# npTDMS writes big-endian samples with their bytes in the wrong order.
#
# Guess: An array of dtype '>i4' is converted, or refused: numpy prints it as 0, 1, 2.
# Seen: The file says little-endian int32 and holds the big-endian bytes: 1 reads back as 16777216. Floats become
# denormals. No warning.
# labhub: Detectors and network instruments deliver big-endian data, which labhub's schema keeps as it is. Convert
# with .astype(dtype.newbyteorder('=')) before a TDMS file is written.
# Versions: npTDMS==1.13.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'npTDMS==1.13.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from nptdms import ChannelObject, TdmsFile, TdmsWriter

sent = np.array([0, 1, 2], dtype=">i4")
with TdmsWriter("run.tdms") as writer:
    writer.write_segment([ChannelObject("group", "counts", sent)])
read = TdmsFile.read("run.tdms")["group"]["counts"][:]
print("sent", sent.tolist(), "read", read.tolist(), read.dtype)
assert sent.tolist() == [0, 1, 2]
assert read.tolist() == [0, 1 << 24, 2 << 24], "npTDMS has changed: check what it does now"
PY
