#!/usr/bin/env bash
# The nexusformat package adds millimetres to metres, number by number.
#
# Guess: Arithmetic of two NXfields looks at their units: it converts, or refuses.
# Seen: [0, 1, 2] mm + [0, 1, 2] m is [0, 2, 4] with the unit of the left one. The other way round it is the same
# numbers in m.
# labhub: NeXus files carry units as labhub does, and a fitting NXfield is what their readers hand out. Convert first;
# units are a label there.
# Versions: nexusformat==2.1.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'nexusformat==2.1.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import nexusformat.nexus as nx

short, long = nx.NXfield([0.0, 1.0, 2.0], units="mm"), nx.NXfield([0.0, 1.0, 2.0], units="m")
one, other = short + long, long + short
print((one.nxdata.tolist(), one.units), (other.nxdata.tolist(), other.units))
assert one.nxdata.tolist() == other.nxdata.tolist() == [0.0, 2.0, 4.0], "nexusformat has changed"
assert (one.units, other.units) == ("mm", "m")
PY
