#!/usr/bin/env bash
# A CAN log in ASC form mixes relative and absolute times once a clock steps back.
#
# Guess: What python-can writes with epoch times it reads with epoch times, as it does for the other formats.
# Seen: The reader gives times since the start of the log. A frame stamped before the first one is written with its
# epoch time among the relative ones: 0.0, 1767225595.1, 1.0. With relative_timestamp=False the date is only
# good to a millisecond.
# labhub: labhub.replay of such a table would wait for half a century, or throw the order over. Convert CAN logs from
# BLF or candump files, and look for falling times first.
# Versions: python-can==4.6.1; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'python-can==4.6.1'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import can

start = 1767225600.123456
with can.Logger("run.asc") as log:
    for at in (start, start - 5, start + 1):
        log.on_message_received(can.Message(timestamp=at, arbitration_id=0x100, data=[1], is_extended_id=False, channel=0))
relative = [message.timestamp for message in can.LogReader("run.asc")]
absolute = [message.timestamp for message in can.ASCReader("run.asc", relative_timestamp=False)]
print("read", relative, "with relative_timestamp=False", [f"{t:.6f}" for t in absolute])
assert relative[0] == 0.0 and relative[1] > 1e9 and relative[2] == 1.0, "python-can has changed"
assert abs(absolute[0] - 1767225600.123) < 1e-6, "python-can has changed: it keeps more than milliseconds now"
PY
