"""A producer and its lossless reader, on a file system that loses its locks and gets them back (test_locks.py)."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from pathlib import Path

from labhub import _native, liveness, runtime
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.doctor import examine
from labhub.errors import BackpressureTimeout, LabHubError
from labhub.schema import Schema

SCHEMA = Schema.infer(dtype="f8")


def set_errno(number: int) -> None:
    """Let every lock of this process fail with that errno; 0 lets them work."""
    with Path(os.environ["NO_LOCKS"]).open("r+b") as file:
        file.write(struct.pack("<q", number))


def refused(call) -> list[str]:
    """Type and text of the error that a call ends with."""
    try:
        call()
    except LabHubError as error:
        return [type(error).__name__, str(error)]
    return ["", ""]


def try_without_locks(number: int) -> dict[str, object]:
    """What becomes of those who are there, and of newcomers, while no lock can be had or looked at."""
    directory = segment_directory()
    with (
        open_producer("x", SCHEMA, capacity=4, timeout=0.3, evict_after=None) as producer,
        open_consumer("x", SCHEMA, mode="lossless") as reader,
    ):
        temporary = Path(directory, ".y.1.1.tmp")
        temporary.touch(0o600)
        where = liveness.place_of(directory) | producer.metadata()
        producer.write_many([0.0, 1.0, 2.0, 3.0])
        set_errno(number)
        seen: dict[str, object] = {}
        try:
            producer.write(4.0)
        except BackpressureTimeout:
            seen["write"] = "waited"
        seen["evictions"] = None
        seen["alive"] = reader.producer_alive
        seen["verdict"] = liveness.judge("x", where)
        seen["buried"] = liveness.bury("x", where)
        seen["orphan"] = liveness.is_orphan(str(temporary))
        seen["refused"] = {
            "new producer": refused(lambda: open_producer("new", SCHEMA)),
            "same producer": refused(lambda: open_producer("x", SCHEMA, capacity=4)),
            "consumer": refused(lambda: open_consumer("x", SCHEMA, mode="lossless")),
            "probe": refused(lambda: _native.probe(directory, "x")),
            "broker": refused(lambda: contextlib.ExitStack().enter_context(runtime.claimed("x"))),
        }
        seen["removals"] = [f.subject for f in examine() if "rm" in f.fix.split() and f.subject.endswith("/x")]
        set_errno(0)
        seen["evictions"] = producer.stats()["evictions"]
        temporary.unlink()
        (runtime.runtime_directory() / "broker-x.lock").unlink()
        seen["read"] = next(reader.batches()).data.tolist()
    return seen


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(try_without_locks(int(line))), flush=True)


if __name__ == "__main__":
    main()
