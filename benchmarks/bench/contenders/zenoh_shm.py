"""Eclipse Zenoh with its shared-memory provider: two peers over a local socket, the payload in shared memory."""

from __future__ import annotations

import importlib.util
import json
import time
from typing import Any

from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import measured, rows, values_of_messages
from bench.workload import Workload

KEY = "labhub/bench"
OVERHEAD = 64 * 1024
"""What the provider's allocator needs beside the slots (in bytes)."""


class Zenoh(Contender):
    """Its Python package fills and reads shared memory through `bytes`: one copy more on each side."""

    name = "zenoh shm"

    def missing(self) -> str | None:
        """It is a package of its own, and shared memory is an option of its build."""
        if importlib.util.find_spec("zenoh") is None:
            return "eclipse-zenoh is not installed"
        return None if importlib.util.find_spec("zenoh.shm") else "this eclipse-zenoh has no shared memory"

    def supports(self, workload: Workload) -> bool:
        """Take part in streams of lossless readers."""
        return workload.kind == "stream" and not workload.lossy

    def config(self, place: Place, side: str) -> Any:
        """Connect over a socket of the run's own, and look for nobody else."""
        import zenoh

        config = zenoh.Config()
        config.insert_json5(f"{side}/endpoints", json.dumps([f"unixsock-stream/{place.directory}/socket"]))
        if side == "connect":
            config.insert_json5("listen/endpoints", "[]")
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("transport/shared_memory/enabled", "true")
        return config

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Allocate, fill, put; what is in flight is bounded by the provider's pool."""
        import zenoh
        from zenoh.shm import BlockOn, GarbageCollect, ShmProvider

        with zenoh.open(self.config(place, "listen")) as session:
            provider = ShmProvider.default_backend(workload.nbytes * workload.slots_in_flight + OVERHEAD)
            publisher = session.declare_publisher(KEY, congestion_control=zenoh.CongestionControl.BLOCK)
            gate.created()
            deadline = time.monotonic() + PATIENCE
            while not publisher.matching_status.matching and time.monotonic() < deadline:
                time.sleep(0.001)
            gate.start()
            nbytes, patient = workload.nbytes, BlockOn(GarbageCollect())
            for row in rows(workload):
                buffer = provider.alloc(nbytes, policy=patient)
                buffer[:nbytes] = row.tobytes()
                publisher.put(buffer)
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Take samples from a channel."""
        import zenoh

        gate.await_created()
        with zenoh.open(self.config(place, "connect")) as session:
            channel = zenoh.handlers.FifoChannel(workload.slots_in_flight)
            with session.declare_subscriber(KEY, channel) as subscriber:
                gate.start()
                messages = (sample.payload.to_bytes() for sample in subscriber)
                figures = measured(values_of_messages(messages, workload), workload)
                gate.finish()
                return figures
