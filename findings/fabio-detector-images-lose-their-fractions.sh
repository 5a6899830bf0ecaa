#!/usr/bin/env bash
# FabIO stores float images as integers in CBF, and as float32 in TIFF.
#
# Guess: An image of floats is stored as floats, or refused by a format that has none.
# Seen: CBF cuts 2.5 to 2 and -1.5 to -1 (only a log line says that int32 was taken). TIFF turns float64 into
# float32: 16777217 becomes 16777216, 1e300 becomes infinite.
# labhub: Background-subtracted frames are floats. An export through FabIO must choose a format that holds them (EDF
# keeps float64) or tell what is lost.
# Versions: fabio==2026.6.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'fabio==2026.6.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import logging
import numpy as np
import fabio
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage

logging.disable(logging.CRITICAL)
frame = np.array([[2.5, -1.5], [16777217.0, 3.0]])
read = {}
for name, kind in (("a.cbf", CbfImage), ("a.tif", TifImage), ("a.edf", EdfImage)):
    kind(data=frame).write(name)
    read[name] = fabio.open(name).data.astype(float).tolist()
print(read)
assert read["a.edf"] == frame.tolist()
assert read["a.cbf"][0] == [2.0, -1.0], "fabio has changed: CBF"
assert read["a.tif"][1][0] == 16777216.0, "fabio has changed: TIFF"
PY
