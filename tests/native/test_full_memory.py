"""A file system that is full: a typed error before anything is created, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
# In a mount namespace of its own: nobody else sees the small file system, and it is gone when this ends.
IN_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$LABHUB_SHM_DIR" && exec "$@"'


def on_a_small_tmpfs(code: str) -> str:
    """Run Python code where the segment directory is a tmpfs of 1 MiB; what it prints."""
    probe = subprocess.run([*IN_NAMESPACE, MOUNT, "sh", "true"], capture_output=True, text=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"no private mount namespace: {' '.join(probe.stderr.split())}")
    command = [*IN_NAMESPACE, MOUNT, "sh", sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
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


def test_what_does_not_fit_is_refused_before_anything_is_created() -> None:
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
    assert out == "refused\n"


def test_a_file_system_that_fills_up_meanwhile() -> None:
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
    assert out == "refused\nrefused\n"


def test_default_rings_are_small_on_a_small_file_system() -> None:
    out = on_a_small_tmpfs("""
with open_producer("x", KIB) as p:
    print(p.capacity * 1024 <= 1024 * 1024 // 16)
""")
    assert out == "True\n"


def test_no_more_descriptors() -> None:
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
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_no_more_address_space() -> None:
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
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_a_directory_that_cannot_be_written(private_dirs: Path) -> None:
    if os.geteuid() == 0:
        drop = "import os; os.setuid(65534)\n"
        shm = Path("/dev/shm") / f"labhub-test-nobody-{os.getpid()}"
    else:
        drop, shm = "", private_dirs / "shm"
    shm.mkdir(0o700, exist_ok=True)
    code = f"""
from labhub import Schema
from labhub.datablock.producer import open_producer
from labhub.errors import SegmentAccessError
{drop}
try:
    open_producer("x", Schema.infer(dtype="i8"), directory={str(shm / "default")!r}, capacity=4)
except SegmentAccessError as error:
    print(error)
"""
    try:
        shm.chmod(0o700 if os.geteuid() == 0 else 0o500)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert str(shm) in done.stdout, done.stderr
        assert list(shm.iterdir()) == []
    finally:
        shm.chmod(0o700)
        if os.geteuid() == 0:
            shm.rmdir()
