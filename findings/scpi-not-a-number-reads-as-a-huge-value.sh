#!/usr/bin/env bash
# PyVISA reads an instrument's 'not a number' as 9.91e37.
#
# Guess: query_ascii_values turns SCPI's codes for overload and not-a-number into inf and NaN.
# Seen: SCPI-99 sends infinity as 9.9E37 and not-a-number as 9.91E37. They arrive as these numbers, and pymeasure
# hands them on.
# labhub: One such value in a labhub channel flattens every live plot and spoils each mean. Map both to inf and NaN
# before write.
# Versions: PyVISA==1.16.2, PyVISA-sim==0.7.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'PyVISA==1.16.2' 'PyVISA-sim==0.7.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import pathlib
import pyvisa

pathlib.Path("meter.yaml").write_text('''
spec: "1.1"
devices:
  meter:
    eom: {ASRL INSTR: {q: "\\n", r: "\\n"}}
    error: ERROR
    dialogues:
      - {q: "READ?", r: "1.5,9.9E+37,9.91E+37"}
resources:
  ASRL1::INSTR: {device: meter}
''')
meter = pyvisa.ResourceManager("meter.yaml@sim").open_resource("ASRL1::INSTR", read_termination="\n", write_termination="\n")
values = meter.query_ascii_values("READ?")
print("1.5, overload, not a number:", values)
assert values == [1.5, 9.9e37, 9.91e37], "pyvisa has changed"
PY
