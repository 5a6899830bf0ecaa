#!/usr/bin/env bash
# A pymeasure result file keeps six digits of its parameters, and of nothing else.
#
# Guess: The parameters at the head of a result file are those of the run.
# Seen: 0.123456789 V is stored, and loaded again, as 0.123457; the data below have all their digits, integers too.
# labhub: Who compares a recording of labhub with the run's parameters, a frequency say, finds another number. Write
# parameters into the channel's attributes.
# Versions: PyMeasure==0.16.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'PyMeasure==0.16.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import pathlib
import sys

pathlib.Path("scan.py").write_text('''
from pymeasure.experiment import FloatParameter, Procedure

class Scan(Procedure):
    frequency = FloatParameter("frequency", units="Hz", default=1.0)
    DATA_COLUMNS = ["voltage"]
''')
sys.path.insert(0, ".")
from pymeasure.experiment import Results
from scan import Scan

run = Scan()
run.frequency = 429228004.229873
with open("unused", "w"):
    pass
results = Results(run, "run.csv")
with open("run.csv", "a") as file:
    file.write(results.format({"voltage": 0.1 + 0.2}) + "\n")
loaded = Results.load("run.csv")
print("frequency", run.frequency, "->", loaded.procedure.frequency, " datum", loaded.data["voltage"].iloc[0])
assert loaded.procedure.frequency == 429228000.0, "pymeasure has changed"
assert loaded.data["voltage"].iloc[0] == 0.1 + 0.2
PY
