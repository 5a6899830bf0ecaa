#!/usr/bin/env bash
# An OPC UA subscription says nothing about a reading that equals the one before.
#
# Guess: A subscriber is called for each write of the server, with its time.
# Seen: Writes of 1, 1, 1, 2 with four source times give two notifications: the standard's filter compares value and
# status, not time. The times of the second and third reading never arrive.
# labhub: A steady sensor then looks like a stalled one in labhub, and means over samples are wrong. Ask for the
# trigger StatusValueTimestamp.
# Versions: asyncua==2.1.0; Python 3.11 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check 'asyncua==2.1.0'
cd "$work"
timeout 120 "$work/env/bin/python" -W ignore - <<'PY'
import asyncio
import datetime
import logging
from asyncua import Client, Server, ua

logging.disable(logging.CRITICAL)


async def main():
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:48431/")
    index = await server.register_namespace("urn:example:lab")
    node = await server.nodes.objects.add_variable(index, "pressure", 0.0)
    seen = []

    class Handler:
        def datachange_notification(self, node, value, data):
            seen.append(value)

    async with server, Client("opc.tcp://127.0.0.1:48431/") as client:
        subscription = await client.create_subscription(50, Handler())
        await subscription.subscribe_data_change(client.get_node(node.nodeid), queuesize=100)
        for k, value in enumerate((1.0, 1.0, 1.0, 2.0)):
            at = datetime.datetime(2026, 1, 1, 0, 0, k, tzinfo=datetime.timezone.utc)
            await node.write_value(ua.DataValue(ua.Variant(value, ua.VariantType.Double), SourceTimestamp=at))
        for _ in range(200):
            if seen[-1:] == [2.0]:
                break
            await asyncio.sleep(0.05)
    return seen


seen = asyncio.run(main())
print("written 1, 1, 1, 2 with four times; notified of", seen)
assert [v for v in seen if v] == [1.0, 2.0], "asyncua has changed"
PY
