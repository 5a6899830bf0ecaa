#!/usr/bin/env bash
# asammdf gives a two-dimensional signal back as one column that mixes the others.
#
# Guess: A Signal with samples of shape (3, 2) is stored as an array channel, or refused.
# Seen: The file gives a one-dimensional channel of three values: 1, 10, 2, the beginning of the flattened array.
# Row 2 has column 2 of row 1. No error, no warning.
# labhub: Slots with axes (a spectrum, several electrodes) are ordinary in labhub. An MDF export needs one channel for
# each column, or asammdf's own way to compose arrays.
# Versions: asammdf==8.8.28, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'asammdf==8.8.28' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from asammdf import MDF, Signal

sent = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
measurement = MDF()
measurement.append([Signal(sent.copy(), np.arange(3.0), name="electrodes", unit="mV")])
measurement.save("run.mf4", overwrite=True)
read = MDF("run.mf4").get("electrodes").samples
print("sent", sent.tolist(), "read", read.tolist())
assert read.tolist() == sent.ravel()[:3].tolist(), "asammdf has changed: check what becomes of arrays"
PY
