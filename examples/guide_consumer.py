"""The reference guide's "Complete Example: Consumer Process", line for line; it ends after some readings.

Run it with the endpoint and the public key that ``labhub-broker`` prints at its start::

    python examples/guide_consumer.py tcp://127.0.0.1:5570 '...40-char Z85 key...' [READINGS]
"""

import struct
import sys

import labhub
from labhub import DataBlockConfig, LifecycleGuard, Messenger, find_datablock_consumer, make_mod_def_list


def main() -> int:
    # --- Lifecycle init ---
    guard = LifecycleGuard(
        make_mod_def_list(
            labhub.lifecycle.get_lifecycle_module(),
            labhub.transport.get_lifecycle_module(),
            labhub.messenger.get_lifecycle_module(),
        )
    )

    # --- Connect to broker (same endpoint + public key) ---
    messenger = Messenger.get_instance()
    endpoint, pubkey = sys.argv[1:3]
    messenger.connect(endpoint, pubkey)

    # --- Discover channel (synchronous: blocks until broker responds or timeout) ---
    channel = "sensor.temperature"
    info = messenger.discover_producer(channel, 10000)
    if info is None:
        print(f"Channel '{channel}' not found: is producer running?", file=sys.stderr)
        return 1
    print(f"Discovered '{channel}' at shm='{info.shm_name}' schema_v={info.schema_version}")

    # --- Attach to shared memory ---
    cfg = DataBlockConfig()
    cfg.shared_secret = 0xDEADBEEF12345678  # must match producer
    consumer = find_datablock_consumer(info.shm_name, cfg.shared_secret, cfg)

    # --- Consume data ---
    temp_reading = struct.Struct("=dq")  # double celsius; int64_t timestamp_ns
    remaining = int(sys.argv[3]) if len(sys.argv) > 3 else 10

    while remaining:
        slot = consumer.acquire_consume_slot(1000)
        if slot is None:
            continue  # timeout: no new data
        celsius, timestamp_ns = temp_reading.unpack(slot.read(temp_reading.size))
        print(f"T = {celsius:.2f}°C  ts = {timestamp_ns}")
        slot.reset()  # release slot
        remaining -= 1

    consumer.close()
    messenger.disconnect()
    guard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
