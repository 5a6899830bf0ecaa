#!/usr/bin/env bash
# A pymeasure validator turns a setpoint that is NaN into the limit of its range.
#
# Guess: truncated_range passes on what is in the range, clips what is outside, and refuses NaN.
# Seen: NaN becomes the lower limit, and truncated_discrete_set turns it into the largest value of the set; 2.1
# becomes 5 there, as it rounds up.
# labhub: A control loop whose measured value is NaN for a moment, as a dropout in labhub is, moves the instrument to
# an end of its range. Check setpoints before; strict_range refuses.
# Versions: PyMeasure==0.16.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'PyMeasure==0.16.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import math
from pymeasure.instruments.validators import strict_range, truncated_discrete_set, truncated_range

found = truncated_range(math.nan, [2, 10]), truncated_discrete_set(math.nan, [1, 2, 5, 10]), truncated_discrete_set(2.1, [1, 2, 5, 10])
print("NaN in [2, 10]:", found[0], " NaN in the set 1, 2, 5, 10:", found[1], " 2.1 in that set:", found[2])
assert found == (2, 10, 5), "pymeasure has changed"
try:
    strict_range(math.nan, [2, 10])
    raise AssertionError("pymeasure has changed: strict_range takes NaN")
except ValueError:
    pass
PY
