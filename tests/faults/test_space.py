"""Faults 9 and 10: a file system, the table of open files or the address space is full."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from labhub import Messenger, runtime
from labhub.hub import connect
from tests.conftest import wait_until
from tests.faults.rounds import Fault
from tests.faults.segments import BROKER, elsewhere

MIB = 1024 * 1024
# In a mount namespace of its own: nobody else sees the small file system, and it is gone when this ends.
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o "size=1m,mode=700,nr_inodes=16" tmpfs "${place}" && exec "$@"'


def on_a_small_tmpfs(code: str, place: str = "LABHUB_SHM_DIR") -> str:
    """Run Python code where the segment directory, or another one, is a tmpfs of 1 MiB; what it prints."""
    mount = MOUNT.replace("place", place)
    probe = subprocess.run([*IN_NAMESPACE, mount, "sh", "true"], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"no private mount namespace: {' '.join(probe.stderr.split())}")
    command = [*IN_NAMESPACE, mount, "sh", sys.executable, "-c", PRELUDE.replace("LABHUB_SHM_DIR", place) + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


PRELUDE = """
import os, pathlib, sys
import numpy as np
from labhub import Schema, _native
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentSpaceError

KIB = Schema.infer(dtype="u1", shape=(1024,))
base = pathlib.Path(os.environ["LABHUB_SHM_DIR"])
def files(): return sorted(p.name for p in base.rglob("*") if not p.is_dir())
def free(): s = os.statvfs(base); return s.f_bavail * s.f_frsize
assert free() <= 1024 * 1024
"""


@pytest.mark.fault(9)
def test_09_segment_larger_than_shared_memory(fault: Fault) -> None:
    out = on_a_small_tmpfs("""
room = free()
try:
    open_producer("x", KIB, capacity=2000)
except SegmentSpaceError as error:
    assert isinstance(error, OSError)
    assert error.needed > 2000 * 1024 and error.free == room, (error.needed, error.free, room)
    assert str(error.needed) in str(error) and str(error.free) in str(error) and "LABHUB_SHM_DIR" in str(error)
    print("refused")
assert files() == []
""")
    with fault.round():
        assert out == "refused\n"
        fault.happened()


@pytest.mark.fault(9)
def test_09_shared_memory_fills_up_meanwhile(fault: Fault) -> None:
    out = on_a_small_tmpfs("""
with open_producer("x", KIB, capacity=300) as p, open_consumer("x", KIB) as c:
    (base / "filler").write_bytes(bytes(free()))
    assert free() == 0
    for name in ("y", "z"):
        try:
            open_producer(name, KIB, capacity=1)
        except SegmentSpaceError as error:
            assert error.free == 0 and error.needed > 0
            print("refused")
    assert files() == ["filler", "x"]
    for k in range(900):  # every page of the ring: it was allocated when it was made, so there is no SIGBUS
        p.write(np.full(1024, k % 256, "u1"))
    assert next(c.batches()).data[-1, 0] == 899 % 256
(base / "filler").unlink()
assert files() == []
""")
    with fault.round():
        assert out == "refused\nrefused\n"
        fault.happened()


@pytest.mark.fault(9)
def test_09_default_ring_in_small_shared_memory(fault: Fault) -> None:
    out = on_a_small_tmpfs("""
with open_producer("x", KIB) as p:
    print(p.capacity * 1024 <= 1024 * 1024 // 16)
""")
    with fault.round():
        assert out == "True\n"
        fault.happened()


@pytest.mark.fault(10)
def test_10_no_more_open_files_for_producers_and_consumers(fault: Fault) -> None:
    code = """
import os, resource
from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentSpaceError

number = Schema.infer(dtype="i8")
with open_producer("x", number, capacity=4) as p:
    first = os.open("/dev/null", os.O_RDONLY)
    refused = 0
    for more in range(6):
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + more, 4096))
        for opening in (lambda: open_producer("y", number, capacity=4), lambda: open_consumer("x", number)):
            try:
                opening().close()
            except SegmentSpaceError:
                refused += 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        assert sorted(os.listdir(segment_directory())) == ["x"], os.listdir(segment_directory())
    assert refused, "the limit was never met"
    p.write(7)
    with open_consumer("x", number, start="oldest") as c:
        assert next(c.batches()).data.tolist() == [7]
print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    with fault.round():
        assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
        fault.happened()


@pytest.mark.fault(10)
def test_10_no_more_address_space_for_producers(fault: Fault) -> None:
    code = """
import resource
from labhub import Schema
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentSpaceError
import os

frame = Schema.infer(dtype="u1", shape=(1024 * 1024,))
with open_producer("x", frame, capacity=2) as p:
    with open("/proc/self/statm") as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 32 * 1024 * 1024, resource.RLIM_INFINITY))
    try:
        open_producer("y", frame, capacity=64)
    except SegmentSpaceError:
        print("refused")
    assert os.listdir(segment_directory()) == ["x"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    with fault.round():
        assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
        fault.happened()


FULL = """
from labhub import connect, runtime
from labhub.hub import named_broker
from labhub.transport.curve import CLIENT_KEY, load_key

def fill_up(what):
    if what == "bytes":
        (base / "filler").write_bytes(bytes(free()))
    else:
        for n in range(os.statvfs(base).f_ffree): (base / f"filler{n}").touch()

def refused(attempt):
    before = files()
    try:
        attempt()
    except SegmentSpaceError as error:
        assert str(base) in str(error) and "make room" in str(error), error
    else:
        raise AssertionError("there was room")
    assert files() == before, files()
    print("refused")

def make_key(): load_key(CLIENT_KEY)

def serve():
    with named_broker(endpoint="tcp://127.0.0.1:0") as service: service.start()
"""


@pytest.mark.fault(9)
def test_09_runtime_and_key_directories_full(fault: Fault) -> None:
    attempts = {
        "LABHUB_RUNTIME_DIR": "refused(serve)",
        "LABHUB_DATA_DIR": "refused(serve); refused(lambda: connect(start=True)); refused(make_key)",
    }
    for place, code in attempts.items():
        for what in fault.each(("bytes", "names")):
            if what == "names" and place == "LABHUB_RUNTIME_DIR":
                code += "; refused(runtime.claimed('x').__enter__)"
            out = on_a_small_tmpfs(f"{FULL}\nfill_up({what!r})\n{code}\n", place)
            fault.happened(out.count("refused"))


CLIENT = """
import resource, labhub, psutil
from labhub.errors import SegmentSpaceError
from tests.conftest import wait_until
def taken(): return psutil.Process().num_fds(), psutil.Process().num_threads()
alone = taken()[1]
labhub.connect().close()  # so that everything is loaded
wait_until(lambda: taken()[1] == alone, 30, "its threads' end")
print("ready", flush=True)
def limited(kind, limits):
    for limit in limits:
        before = taken()
        resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
        try:
            labhub.connect().close()
        except SegmentSpaceError as error:
            assert "ulimit" in str(error), error
            yield error
        finally:
            resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)
        wait_until(lambda: taken() == before, 30, "the end of all that was begun")
first = os.open("/dev/null", os.O_RDONLY)
files = list(limited(resource.RLIMIT_NOFILE, range(first, first + 40)))
used = psutil.Process().memory_info().vms
space = list(limited(resource.RLIMIT_AS, range(used, used + (64 << 20), 4 << 20)))
with labhub.connect() as hub, hub.producer("x", like=1.0) as p:
    p.write(2.0)
    print(len(files), len(space), flush=True)
"""


@pytest.mark.fault(10)
def test_10_no_more_open_files_or_address_space_for_a_client(fault: Fault) -> None:
    """Where there is too little of either, libzmq would end the process; before that comes an error."""
    with fault.round(), elsewhere(BROKER), elsewhere(CLIENT) as client:
        files, space = map(int, client.read().split())
        assert files >= 20
        assert space >= 4
        fault.happened(files + space)
        assert client.end() == 0


SERVICE = """
import resource, os
from labhub import BrokerConfig, BrokerService
from labhub.errors import SegmentSpaceError
from labhub.hub import start_broker
def opened(): return sorted(os.listdir("/proc/self/fd"))
def serve():
    with BrokerService(BrokerConfig("tcp://127.0.0.1:0")): pass
def refused(attempt, limits):
    for limit in limits:
        before = opened()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            attempt()
        except SegmentSpaceError as error:
            assert "ulimit" in str(error), error
            yield error
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        assert opened() == before
serve()  # so that everything is loaded
first = os.open("/dev/null", os.O_RDONLY)
print(len(list(refused(serve, range(first, first + 40)))), len(list(refused(start_broker, [first + 1]))))
"""


@pytest.mark.fault(10)
def test_10_no_more_open_files_for_a_broker(fault: Fault) -> None:
    done = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, timeout=60)
    with fault.round():
        assert done.returncode == 0, done.stderr
        inside, outside = map(int, done.stdout.split())
        assert inside >= 20
        assert outside == 1
        fault.happened(inside + outside)


@pytest.mark.fault(10, full=5)
def test_10_broker_out_of_open_files(fault: Fault) -> None:
    with elsewhere(BROKER) as broker, connect() as hub, hub.producer("x", like=1.0) as p:
        process = psutil.Process(broker.pid)
        _, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        known = runtime.find()
        assert known is not None
        host, port = known.endpoint.removeprefix("tcp://").split(":")
        for _ in fault.each_round():
            most = process.num_fds() + 16
            process.rlimit(psutil.RLIMIT_NOFILE, (most, hard))
            idle = [socket.create_connection((host, int(port)), 30) for _ in range(64)]  # most wait to be accepted
            wait_until(lambda most=most: process.num_fds() >= most, 30, "the broker's last open file")
            fault.happened()
            assert hub.find("x").producer_pid == os.getpid()  # who is connected is served
            p.write(1.0)
            for one in idle:
                one.close()
            with fault.recovery(), Messenger() as newcomer:
                wait_until(lambda m=newcomer: m.connect(known.endpoint, known.public_key, timeout=5), 60, "a newcomer")
            wait_until(lambda: hub.find("x").liveness == "alive", 30)
            process.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
        assert hub.status == "connected"
