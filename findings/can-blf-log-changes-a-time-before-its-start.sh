#!/usr/bin/env bash
# A CAN log in BLF form moves a frame from before its first one to its start.
#
# Guess: A frame that was stamped five seconds before the first one of the log keeps its time, or is refused.
# Seen: The time is replaced by that of the log's start, cut to milliseconds: 5 s wrong, without a word. The TRC
# form of the same library keeps it.
# labhub: Bus adapters of several clocks, or a clock that is set by NTP during a run, give such frames. labhub keeps
# times as they came, so the damage is done before the import.
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
read = {}
for form in ("blf", "trc"):
    with can.Logger("run." + form) as log:
        for at in (start, start - 5, start + 1):
            log.on_message_received(can.Message(timestamp=at, arbitration_id=0x100, data=[1], is_extended_id=False, channel=0))
    read[form] = [round(message.timestamp - start, 3) for message in can.LogReader("run." + form)]
print("seconds after the first frame, sent [0, -5, 1]:", read)
assert read["trc"] == [0.0, -5.0, 1.0]
assert read["blf"][1] > -0.01, "python-can has changed: a BLF log keeps earlier times now"
PY
