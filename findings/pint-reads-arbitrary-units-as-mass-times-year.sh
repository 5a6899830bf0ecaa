#!/usr/bin/env bash
# Pint takes 'a.u.' for atomic mass times year, and 'ct' for carat.
#
# Guess: A word for arbitrary units, or for detector counts, is unknown to a unit library and raises.
# Seen: 'a.u.' is u * a: unified atomic mass unit times year. 'ct', FITS's and astropy's word for counts, is carat,
# a mass of 0.2 g. Both convert to kilogram, silently.
# labhub: Spectra come in a.u., detectors in ct, and labhub keeps the user's words. Map such words before a dataset is
# quantified.
# Versions: Pint==0.25.3; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'Pint==0.25.3'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import pint

units = pint.UnitRegistry()
read = {word: (str(units.Unit(word)), str(units.Unit(word).dimensionality)) for word in ("a.u.", "ct")}
print(read, "1 ct =", units("1 ct").to("gram"))
assert set(read["a.u."][0].split(" * ")) == {"unified_atomic_mass_unit", "year"}, "pint has changed: a.u."
assert read["ct"] == ("carat", "[mass]"), "pint has changed: ct"
PY
