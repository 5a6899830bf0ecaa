"""The reference guide's "Complete Example: Producer Process", line for line.

Run it with the endpoint and the public key that ``labhub-broker`` prints at its start::

    python examples/guide_producer.py tcp://127.0.0.1:5570 '...40-char Z85 key...'
"""

import os
import signal
import struct
import sys
import time

import labhub
from labhub import (
    ConsumerSyncPolicy,
    DataBlockConfig,
    DataBlockPageSize,
    DataBlockPolicy,
    LifecycleGuard,
    Messenger,
    ProducerInfo,
    create_datablock_producer,
    make_mod_def_list,
)

running = True


def stop(*_: object) -> None:
    global running
    running = False


def main() -> int:
    # --- Lifecycle init (topological-sort init of logger -> crypto -> hub) ---
    guard = LifecycleGuard(
        make_mod_def_list(
            labhub.lifecycle.get_lifecycle_module(),
            labhub.transport.get_lifecycle_module(),
            labhub.messenger.get_lifecycle_module(),
        )
    )

    # --- Connect Messenger to broker ---
    messenger = Messenger.get_instance()
    broker_endpoint, broker_pubkey = sys.argv[1:3]
    if not messenger.connect(broker_endpoint, broker_pubkey):
        print("Failed to connect to broker", file=sys.stderr)
        return 1

    # --- Create shared-memory ring buffer ---
    channel = "sensor.temperature"
    cfg = DataBlockConfig()
    cfg.policy = DataBlockPolicy.RING_BUFFER
    cfg.consumer_sync_policy = ConsumerSyncPolicy.LATEST_ONLY
    cfg.ring_buffer_capacity = 8
    cfg.physical_page_size = DataBlockPageSize.SIZE_4K
    cfg.shared_secret = 0xDEADBEEF12345678

    producer = create_datablock_producer(channel, DataBlockPolicy.RING_BUFFER, cfg)

    # --- Register channel with broker (fire-and-forget) ---
    pinfo = ProducerInfo(
        shm_name=channel,  # shm segment name matches channel name
        producer_pid=os.getpid(),
        schema_hash=bytes(32),  # replace with real BLAKE3 hash of schema
        schema_version=1,
    )
    messenger.register_producer(channel, pinfo)

    # --- Produce data ---
    temp_reading = struct.Struct("=dq")  # double celsius; int64_t timestamp_ns
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    while running:
        slot = producer.acquire_write_slot(5000)
        if slot is None:
            continue
        reading = temp_reading.pack(23.5, time.time_ns())
        slot.write(reading)
        slot.commit(len(reading))
        producer.release_write_slot(slot)
        time.sleep(0.01)

    messenger.disconnect()
    producer.close()
    guard.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
