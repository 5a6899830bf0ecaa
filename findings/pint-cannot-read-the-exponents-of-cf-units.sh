#!/usr/bin/env bash
# Pint raises a bare TypeError for units in the notation of CF and UDUNITS.
#
# Guess: 'm s-1' is read as metre per second, or raises pint's own error for words that it does not know.
# Seen: Unit('m s-1') raises TypeError from its parser: '-1' is taken as a subtraction. As a quantity it is
# DimensionalityError. 'm2' is unknown. The one registry that reads them is cf_xarray's.
# labhub: labhub writes CF, so units are often in this notation; a program that catches pint's errors still ends. Use
# cf_xarray's registry.
# Versions: Pint==0.25.3, cf_xarray==0.11.3; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'Pint==0.25.3' 'cf_xarray==0.11.3'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import pint

units = pint.UnitRegistry()
outcome = {}
for word in ("m s-1", "W m-2", "m2"):
    try:
        outcome[word] = str(units.Unit(word))
    except Exception as error:
        outcome[word] = (type(error).__name__, isinstance(error, pint.PintError))
print(outcome)
from cf_xarray.units import units as cf_units

print("cf_xarray's registry:", cf_units.Unit("m s-1"))
assert outcome["m s-1"] == outcome["W m-2"] == ("TypeError", False), "pint has changed"
assert outcome["m2"] == ("UndefinedUnitError", True), "pint has changed: m2"
assert str(cf_units.Unit("m s-1")) == "meter / second"
PY
