#!/usr/bin/env bash
# rosbags serialises an int64 array into a float64 field by its bits.
#
# Guess: An array of another dtype of the same size is converted or refused, as an array of another size is.
# Seen: Float64MultiArray with an int64 array [1, 2, 3] reads back as [4.9e-324, 9.9e-324, 1.5e-323]; big-endian
# floats likewise. float32 raises ValueError, so the check looks at sizes only.
# labhub: A labhub channel of counts that is written into a bag loses every value. Use .astype('<f8') before.
# Versions: rosbags==0.11.9, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'rosbags==0.11.9' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
name = "std_msgs/msg/Float64MultiArray"
layout = store.types["std_msgs/msg/MultiArrayLayout"]([], 0)
sent = np.array([1, 2, 3], dtype="i8")
read = store.deserialize_cdr(store.serialize_cdr(store.types[name](layout, sent), name), name).data
print("sent", sent.tolist(), "read", read.tolist())
assert read.tolist() == sent.view("f8").tolist(), "rosbags has changed"
PY
