#!/usr/bin/env bash
# npTDMS writes a file that it cannot read, once a list of integers needs more bits than the first one.
#
# Guess: Plain Python integers are stored as a type that later integers fit, or the writer refuses the one that does
# not.
# Seen: [1, 2, 3] makes the channel int8. A second segment with [300] is written as int16 without a word, and then
# reading the file raises ValueError: all of it, the first segment too.
# labhub: A counter starts small. A script that turns batches into lists before it writes TDMS learns of it after the
# run; pass numpy arrays of the channel's dtype.
# Versions: npTDMS==1.13.0, numpy==2.4.6; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'npTDMS==1.13.0' 'numpy==2.4.6'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from nptdms import ChannelObject, TdmsFile, TdmsWriter


def read_back(*segments):
    with TdmsWriter("run.tdms") as writer:
        for values in segments:
            writer.write_segment([ChannelObject("group", "count", values)])
    try:
        return TdmsFile.read("run.tdms")["group"]["count"][:].tolist()
    except ValueError as error:
        return f"ValueError: {error}"


lists, arrays = read_back([1, 2, 3], [300]), read_back(np.array([1, 2, 3]), np.array([300]))
print("lists:", lists, " arrays of one dtype:", arrays)
assert arrays == [1, 2, 3, 300]
assert isinstance(lists, str) and "Int8" in lists and "Int16" in lists, "npTDMS has changed"
PY
