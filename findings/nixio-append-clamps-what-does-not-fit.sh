#!/usr/bin/env bash
# NIX clamps what does not fit when floats are appended to an integer array.
#
# Guess: append() of 70000.7 to an int16 array is refused, or wraps as numpy does.
# Seen: It stores 32767, and cuts fractions: HDF5 converts on the way. A value at the limit looks like a saturated
# sensor.
# labhub: A channel whose dtype changed between two runs is appended to the same array without an error. Compare
# dtypes before.
# Versions: nixio==1.5.4, packaging==25.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'nixio==1.5.4' 'packaging==25.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import nixio
import numpy as np

with nixio.File.open("run.nix", nixio.FileMode.Overwrite) as file:
    array = file.create_block("run", "recording").create_data_array("adc", "signal", data=np.array([1, 2], "i2"))
    array.append(np.array([70000.7, 2.9, -70000.0]))
    read = array[:].tolist()
print("sent [1, 2], then [70000.7, 2.9, -70000.0]; read", read)
assert read == [1, 2, 32767, 2, -32768], "nixio has changed"
PY
