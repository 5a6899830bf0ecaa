#!/usr/bin/env bash
# msgpack-numpy sends a masked array without its mask.
#
# Guess: A masked array arrives masked, or is refused.
# Seen: The data below the mask arrive as ordinary numbers: what was marked as bad is measured again. datetime64
# arrays, for comparison, raise.
# labhub: Camera drivers mask dead pixels, and msgpack is a common way between instrument processes. labhub refuses
# masked values for that reason: fill them with NaN first.
# Versions: msgpack-numpy==0.4.8, msgpack==1.2.4, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'msgpack-numpy==0.4.8' 'msgpack==1.2.4' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import msgpack
import msgpack_numpy
import numpy as np

sent = np.ma.masked_array([1.0, 1e20, 3.0], [False, True, False])
read = msgpack.unpackb(msgpack.packb(sent, default=msgpack_numpy.encode), object_hook=msgpack_numpy.decode)
print("sent", sent, "read", read, type(read).__name__)
assert not np.ma.isMaskedArray(read) and read[1] == 1e20, "msgpack-numpy has changed"
PY
