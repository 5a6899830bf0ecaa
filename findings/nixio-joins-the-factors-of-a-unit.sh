#!/usr/bin/env bash
# NIX turns the unit 'm s-1' into 'ms-1', which is per millisecond.
#
# Guess: A unit is stored as it was given, or refused if it is not in the form that NIX wants.
# Seen: All blanks are taken out: metre per second becomes one word that reads as 'per millisecond'. No warning; the
# file holds the new word.
# labhub: CF writes products with blanks, so many units of labhub's channels have one. An export to NIX has to write
# 'm/s'.
# Versions: nixio==1.5.4, packaging==25.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'nixio==1.5.4' 'packaging==25.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import nixio

with nixio.File.open("run.nix", nixio.FileMode.Overwrite) as file:
    array = file.create_block("run", "recording").create_data_array("wind", "signal", data=[1.0, 2.0])
    array.unit = "m s-1"
with nixio.File.open("run.nix", nixio.FileMode.ReadOnly) as file:
    unit = file.blocks[0].data_arrays["wind"].unit
print("sent 'm s-1', read", repr(unit))
assert unit == "ms-1", "nixio has changed"
PY
