#!/usr/bin/env bash
# A note of 256 characters turns into annotations that nobody made, in a WFDB annotation file.
#
# Guess: A long note is stored, cut off, or refused.
# Seen: Up to 255 characters the note is read back. With 256 the length wraps to 0 and the text of the note is read
# as annotations: two marks become more than a hundred. Nothing is said.
# labhub: Markers of labhub take any text. An export to WFDB must cut notes at 255 bytes itself, and say so.
# Versions: wfdb==4.3.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'wfdb==4.3.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
import wfdb

counts = {}
for length in (255, 256):
    wfdb.wrann("run", "atr", np.array([5, 9]), symbol=["N", "N"], aux_note=["start", "x" * length])
    counts[length] = len(wfdb.rdann("run", "atr").sample)
print("two annotations were written; read, by the length of the second note:", counts)
assert counts[255] == 2 and counts[256] > 2, "wfdb has changed: check what it does with long notes"
PY
