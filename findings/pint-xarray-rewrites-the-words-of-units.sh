#!/usr/bin/env bash
# A round trip through pint-xarray changes the words of every unit.
#
# Guess: quantify() and dequantify() give back the attributes that were there: 'mV' stays 'mV'.
# Seen: 'mV' comes back as 'millivolt', 's' as 'second', also on coordinates that nobody touched. A store or a plot
# that is labelled, or compared, by units differs afterwards.
# labhub: labhub compares the units of a channel before it goes on with a recording, and labels plots with them. Give
# dequantify the format '~'.
# Versions: pint-xarray==0.6.1, Pint==0.25.3, xarray==2026.9.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'pint-xarray==0.6.1' 'Pint==0.25.3' 'xarray==2026.9.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import pint_xarray  # noqa: F401
import xarray as xr

sent = xr.Dataset({"v": ("t", [1.0, 2.0], {"units": "mV"})}, {"t": ("t", [0.0, 1.0], {"units": "s"})})
back = sent.pint.quantify().pint.dequantify()
short = sent.pint.quantify().pint.dequantify(format="~")
print("v:", sent.v.attrs, "->", back.v.attrs, " t:", sent.t.attrs, "->", back.t.attrs, " with '~':", short.v.attrs)
assert back.v.attrs["units"] == "millivolt" and back.t.attrs["units"] == "second", "pint-xarray has changed"
assert short.v.attrs["units"] == "mV"
PY
