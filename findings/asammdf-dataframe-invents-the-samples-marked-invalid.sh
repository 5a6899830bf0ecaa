#!/usr/bin/env bash
# A table of an MDF file has numbers where the logger had marked its samples as invalid.
#
# Guess: A sample whose invalidation bit is set is missing in MDF.to_dataframe(): NaN.
# Seen: to_dataframe() puts the value interpolated between its neighbours there: 1, (99 marked invalid), 3 becomes
# 1, 2, 3. get() leaves the sample out; only use_interpolation=False gives NaN.
# labhub: labhub makes what is missing explicit, and replays tables. A table made in this way looks complete; ask
# asammdf for use_interpolation=False before it is replayed.
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

measurement = MDF()
bad = np.array([False, True, False])
measurement.append([Signal(np.array([1.0, 99.0, 3.0]), np.arange(3.0), name="p", unit="mbar", invalidation_bits=bad)])
measurement.save("run.mf4", overwrite=True)
read = MDF("run.mf4")
table, honest = read.to_dataframe()["p"], read.to_dataframe(use_interpolation=False)["p"]
print("to_dataframe()", table.tolist(), " use_interpolation=False", honest.tolist(), " get()", read.get("p").samples.tolist())
assert table.tolist() == [1.0, 2.0, 3.0] and np.isnan(honest.iloc[1]), "asammdf has changed"
PY
