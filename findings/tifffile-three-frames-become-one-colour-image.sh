#!/usr/bin/env bash
# tifffile stores a stack of three camera frames as one colour picture.
#
# Guess: Stacks of 3 and of 5 uint16 frames are stored alike: as that many grey pages.
# Seen: Three (or four) frames become one page of kind RGB; five become five grey ones. Programs that show the file
# show one coloured picture.
# labhub: The length of a batch decides what the file is. Pass photometric='minisblack' whenever a batch of a camera
# channel is saved.
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

found = {}
for n in (2, 3, 4, 5):
    tifffile.imwrite("run.tif", np.zeros((n, 32, 32), "u2"))
    with tifffile.TiffFile("run.tif") as file:
        found[n] = (len(file.pages), file.pages[0].photometric.name)
print("frames: (pages, kind)", found)
assert found[2] == (2, "MINISBLACK") and found[5] == (5, "MINISBLACK")
assert found[3] == (1, "RGB") and found[4] == (1, "RGB"), "tifffile has changed"
tifffile.imwrite("run.tif", np.zeros((3, 32, 32), "u2"), photometric="minisblack")
with tifffile.TiffFile("run.tif") as file:
    assert len(file.pages) == 3
PY
