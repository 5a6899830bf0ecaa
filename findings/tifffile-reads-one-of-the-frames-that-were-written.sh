#!/usr/bin/env bash
# tifffile reads back only the first of the frames that a TiffWriter wrote one by one.
#
# Guess: imread of a file into which three frames of one shape were written gives an array of three frames.
# Seen: It gives the first frame: each write() begins a series of its own, and imread reads series 0. The others are
# there (key=range(3)), and contiguous=True, or metadata=None, makes one series.
# labhub: This is the loop that a user writes to save batches of a camera channel. Write a batch at once, or with
# contiguous=True.
# Versions: tifffile==2026.3.3, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'tifffile==2026.3.3' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
import tifffile

shapes = {}
for how in ({}, {"contiguous": True}):
    with tifffile.TiffWriter("run.tif") as writer:
        for k in range(3):
            writer.write(np.full((4, 4), k, "u2"), **how)
    shapes[str(how)] = tifffile.imread("run.tif").shape
print(shapes)
assert shapes["{}"] == (4, 4), "tifffile has changed"
assert shapes["{'contiguous': True}"] == (3, 4, 4)
PY
