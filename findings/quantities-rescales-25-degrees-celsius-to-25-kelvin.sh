#!/usr/bin/env bash
# In the package quantities, 25 degrees Celsius are 25 kelvin.
#
# Guess: Quantity(25, 'degC').rescale('K') is 298.15 K, or is refused.
# Seen: It is 25.0 K: the package knows degC as a difference of temperature only. Neo, which carries
# electrophysiology's signals with these units, takes it over.
# labhub: A channel with units 'degC' that reaches Neo is silently 273 K off once somebody rescales it. Convert
# temperatures before.
# Versions: quantities==0.16.4, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'quantities==0.16.4' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import quantities as pq

warm = pq.Quantity(25.0, "degC").rescale("K")
print("25 degC =", warm)
assert float(warm.magnitude) == 25.0, "quantities has changed: it may know the offset now"
PY
