#!/usr/bin/env bash
# The remainder of a negative number in a Blosc2 expression is not numpy's, though the quotient is.
#
# Guess: a % 3 on a compressed array gives what it gives on the numpy array: -7 % 3 is 2.
# Seen: It gives -1, as C does, while a // 2 rounds down as Python does: (a // 3) * 3 + a % 3 is no longer a.
# labhub: Phases and encoder counts are folded with %. A user who moves an expression from a labhub batch to a Blosc2
# array gets other numbers for half of them.
# Versions: blosc2==4.14.1, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'blosc2==4.14.1' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import blosc2
import numpy as np

plain = np.array([7, -7])
packed = blosc2.asarray(plain)
remainder, quotient = (packed % 3)[:], (packed // 3)[:]
print("numpy", (plain % 3).tolist(), "blosc2", remainder.tolist(), "quotients", (plain // 3).tolist(), quotient.tolist())
assert (plain % 3).tolist() == [1, 2] and remainder.tolist() == [1, -1], "blosc2 has changed"
assert quotient.tolist() == (plain // 3).tolist()
PY
