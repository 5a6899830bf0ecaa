"""Pids that the kernel gives out again, to whomever this wants: run as the first process of a pid namespace.

``unshare -rmpf --mount-proc python -m tests.faults.reused_pids ROUNDS`` prints a line for each pid that was used again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from labhub import _native, runtime
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.doctor import examine
from labhub.errors import BrokerUnreachable
from labhub.hub import connect, stop_broker
from tests.conftest import wait_until
from tests.faults.segments import BROKER, CAPACITY, FRAME, Elsewhere, elsewhere, place, producer, slots

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
INNOCENT = """
p = open_producer("y", FRAME, capacity=16)
c = open_consumer("y", FRAME, mode="lossless")
print("ready", flush=True)
sys.stdin.read()
"""
READER = 'c = open_consumer("x", FRAME, mode="lossless"); print("ready", flush=True); sys.stdin.read()'
ON_HUB = """
import labhub
hub = labhub.connect()
p = hub.producer("{channel}", dtype="u8", shape=(64,), capacity=16)
p.write(slots(0, 1)[0])
print("ready", flush=True)
sys.stdin.read()
p.close()
"""


@contextlib.contextmanager
def reused(program: str, dead: Elsewhere) -> Iterator[Elsewhere]:
    """Kill a process, and give its pid to another one."""
    dead.kill()
    LAST_PID.write_text(str(dead.pid - 1))
    with elsewhere(program) as other:
        assert other.pid == dead.pid, (other.pid, dead.pid)
        assert Path(f"/proc/{dead.pid}").exists()
        yield other
        assert other.process.poll() is None  # nobody has harmed it
        assert other.end() == 0


def dead_producer() -> None:
    with elsewhere(producer()) as owner, reused(INNOCENT, owner):
        report = _native.probe(segment_directory(), "x")
        assert (report["alive"], report["pid"]) == (False, owner.pid)
        (found,) = [f for f in examine() if f.subject == str(place("x"))]
        assert "is dead" in found.what
        assert found.remedy is not None
        with open_producer("x", FRAME, capacity=CAPACITY) as successor:
            assert successor.took_over
            assert successor.next_seq == 5
            assert not found.remedy()  # it lives again
    print("producer", owner.pid, flush=True)


def dead_consumer() -> None:
    with open_producer("x", FRAME, capacity=CAPACITY, timeout=30, evict_after=None) as p:
        with elsewhere(READER) as reader, reused(INNOCENT, reader):
            (line,) = _native.probe(segment_directory(), "x")["consumers"]  # type: ignore[misc]
            assert (line["alive"], line["pid"]) == (False, reader.pid)
            p.write_many(slots(0, CAPACITY + 1))  # beyond what a reader that lives would let it
            assert p.stats()["evictions"] == 1
    print("consumer", reader.pid, flush=True)


def registered_producer() -> None:
    """The same key, pid and segment name: all that the broker's rule for one that registers again asks for."""
    with elsewhere(BROKER) as broker:
        with connect() as hub, hub.watch("x", existing=False, timeout=30) as watch:
            with elsewhere(ON_HUB.format(channel="x")) as owner:
                assert next(watch).kind == "appeared"
                with reused(ON_HUB.format(channel="x"), owner):
                    event = next(watch)
                    assert event.kind in ("appeared", "producer_died")  # the broker may have looked meanwhile
                    event = event if event.kind == "appeared" else next(watch)
                    assert event.detail == f"taken over from process {owner.pid}"
                    with hub.consumer("x", start="oldest") as c:
                        assert c.snapshot().headers["epoch"].tolist() == [1, 2]
            with elsewhere(ON_HUB.format(channel="x")) as owner, reused(ON_HUB.format(channel="y"), owner):
                wait_until(lambda: hub.find("y").liveness == "alive", 30)
                assert hub.find("x").liveness == "dead"  # whatever the heartbeats of this pid and key say of "y"
        assert broker.end() == 0
    assert not place("x").exists()  # the broker has buried it
    print("registration", owner.pid, flush=True)


def dead_broker() -> None:
    with elsewhere(BROKER) as broker:
        path = runtime.path_of("default")
        wait_until(path.exists, 30)
        with reused(INNOCENT, broker):
            known = runtime.find()
            assert known is not None
            assert known.pid == broker.pid
            assert runtime.find_live() is None
            with contextlib.suppress(BrokerUnreachable):
                stop_broker()
                raise AssertionError("an innocent process was stopped")
            (found,) = [f for f in examine() if f.subject == str(path)]
            assert "is dead" in found.what
            assert found.remedy is not None
            assert found.remedy()
            with elsewhere(BROKER), connect() as hub:
                assert len(hub.channels()) == 0
    print("broker", broker.pid, flush=True)


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        for provoke in (dead_producer, dead_consumer, registered_producer, dead_broker):
            provoke()
