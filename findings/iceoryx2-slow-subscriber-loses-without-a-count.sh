#!/usr/bin/env bash
# A slow iceoryx2 subscriber loses the oldest samples and cannot find out how many.
#
# Guess: A subscriber that falls behind is told: an error, a gap in a sequence number, or a counter.
# Seen: Of ten samples it receives the last two, the depth of its queue, and nothing else: overflow is on unless
# turned off, and the Python sample has no sequence number.
# labhub: Who compares labhub with iceoryx2, or bridges from it, must put a counter into the payload; labhub's own
# readers count their losses exactly.
# Versions: iceoryx2==0.10.0; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'iceoryx2==0.10.0'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import ctypes
import iceoryx2

iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Local)
service = node.service_builder(iceoryx2.ServiceName.new("counts")).publish_subscribe(ctypes.c_uint64).open_or_create()
publisher, subscriber = service.publisher_builder().create(), service.subscriber_builder().create()
for k in range(10):
    publisher.send_copy(ctypes.c_uint64(k))
received = []
for _ in range(20):
    sample = subscriber.receive()
    if sample is None:
        break
    received.append(sample.payload().contents.value)
    told = [n for n in dir(sample.header) if "seq" in n or "lost" in n]
    sample.delete()
print("sent 0 to 9, received", received, "facts of a loss in the header:", told)
assert received == [8, 9] and told == [], "iceoryx2 has changed"
PY
