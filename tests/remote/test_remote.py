"""A client on another machine: it has the broker's endpoint, the server's key and an enrolled key, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from labhub import runtime
from labhub.hub import connect, named_broker
from labhub.transport.keys import enroll
from tests.faults.network_namespaces import HERE, Cable, Place, Python, can_be_made

Wait = Callable[..., None]
Far = Callable[[str], Any]

NOBODY = 65534
CLIENT = """
import labhub
from labhub.transport.curve import CLIENT_KEY, load_key

def key():
    return load_key(CLIENT_KEY).public

def attempt(call):
    try:
        return repr(call())
    except labhub.errors.LabHubError as error:
        return f"{type(error).__name__}: {error}"

def connect(endpoint, public_key):
    global hub
    hub = labhub.connect("far", endpoint=endpoint, public_key=public_key, timeout=20)
    return str(hub.status)

def watch():
    global events
    events = hub.watch("*", timeout=20)
    return True

def event():
    found = next(events)
    return [found.kind, found.channel]
"""
# Another boot, and no segment of the broker's machine: what a process sees of /dev/shm and /proc on another machine.
ELSEWHERE = """
mount -t tmpfs tmpfs "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"
"""


def surroundings(home: Path) -> list[str]:
    """The directories of another account, which are made on first use, and none of ours."""
    names = {"HOME": "", "XDG_RUNTIME_DIR": "run", "LABHUB_SHM_DIR": "shm"}
    unset = [f"--unset={name}" for name in os.environ if name.startswith(("LABHUB_", "XDG_"))]
    return ["env", *unset, *(f"{name}={home / place}" for name, place in names.items())]


@contextmanager
def machine(private_dirs: Path, wait_until: Wait) -> Iterator[tuple[Far, str, Far]]:
    """Another machine behind a cable; what evaluates over there, and the endpoint of the broker here."""
    home = private_dirs / "home"
    home.mkdir(mode=0o700)
    boot = private_dirs / "boot_id"
    boot.write_text("00000000-0000-4000-8000-000000000000\n")
    with ExitStack() as stack:
        here = Place(stack)
        there = Place(stack, within=here)
        Cable(here, there)
        elsewhere = ["unshare", "-m", "sh", "-c", ELSEWHERE, str(private_dirs / "shm"), str(boot)]
        far = Python(there, CLIENT, *elsewhere, *surroundings(home))
        labhub = here.run(sys.executable, "-m", "labhub.cli", "key", "enroll", far("key()"), "--name", "far")
        assert labhub.stdout == "enrolled\n", labhub.stderr
        endpoint = f"tcp://{HERE}:5570"
        here.start(sys.executable, "-m", "labhub.cli", "broker", "run", "--listen", endpoint)
        wait_until(lambda: runtime.find_live() is not None, 60, "the broker")
        near = Python(here, "import labhub\nhub = labhub.connect(timeout=20)\nkept = {}")
        yield far, endpoint, near
        near("hub.close()")
        os.kill(runtime.find_live().pid, signal.SIGTERM)
        wait_until(lambda: runtime.find() is None, 60, "the end of the broker")


@pytest.mark.skipif(not can_be_made(), reason="network namespaces and virtual cables cannot be made here")
def test_a_notebook_on_another_machine(private_dirs: Path, wait_until: Wait) -> None:
    settings = private_dirs / "config" / "broker-default.toml"
    settings.write_text('[access.far]\nconsume = ["pump.*"]\n')
    with machine(private_dirs, wait_until) as (far, endpoint, near):
        key = runtime.find_live().public_key
        assert near("[kept.update(p=hub.producer(n, like=1.0, units='bar')) or n for n in ('pump.a',)]") == ["pump.a"]
        assert near("bool(kept.update(c=hub.producer('cam.b', like=1.0)))") is False
        speaks(far, endpoint, key)
        assert near("bool(kept.update(q=hub.producer('cam.c', like=1.0)))") is False
        assert near("bool(kept.update(r=hub.producer('pump.d', like=1.0)))") is False
        assert far("event()") == ["appeared", "pump.d"]
        said = far("attempt(lambda: hub.consumer('pump.a'))")
        assert said.startswith("ChannelNotFound")
        assert "shared memory does not reach there" in said
        assert "`labhub bridge`" in said
        said = far("attempt(lambda: hub['pump.a'].latest())")
        assert "`labhub bridge`" in said
        for refused in ("hub.consumer('cam.b')", "hub.producer('pump.x', like=1.0)", "hub.schema('cam.b')"):
            said = far(f"attempt(lambda: {refused})")
            assert said.startswith("AccessDenied: the key far may not "), said


def speaks(far: Far, endpoint: str, key: str) -> None:
    """It connects, and sees what it may."""
    assert far(f"connect({endpoint!r}, {key!r})") == "connected"
    assert far("[c.name for c in hub.channels()]") == ["pump.a"]
    assert far("hub.schema('pump.a').units") == {"value": "bar"}
    assert far("hub.find('pump.a').liveness") == "alive"
    assert far("watch()")
    assert far("event()") == ["appeared", "pump.a"]


BECOME = f"""
import encodings.ascii, encodings.idna, os, labhub.hub  # before the interpreter's own directory is out of reach
os.setgroups([]), os.setresgid({NOBODY}, {NOBODY}, {NOBODY}), os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
"""


class OtherUser:
    """The client as another user of this machine, who has nothing of this one's; evaluates what it is told."""

    def __init__(self, home: Path) -> None:
        loop = "\nimport json, sys\nfor line in sys.stdin: print(json.dumps(eval(line)), flush=True)\n"
        command = [*surroundings(home), sys.executable, "-c", CLIENT + BECOME + loop]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, expression: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_over_the_loopback(private_dirs: Path) -> None:
    (private_dirs / "config" / "broker-default.toml").write_text('[access.far]\nconsume = ["pump.*"]\n')
    home = private_dirs / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    private_dirs.chmod(0o711)
    with named_broker(endpoint="tcp://127.0.0.1:0") as service, service, connect() as hub:
        far = OtherUser(home)
        with far.process, hub.producer("pump.a", like=1.0, units="bar"), hub.producer("cam.b", like=1.0):
            assert far("os.getuid()") == NOBODY
            place = f"{service.endpoint!r}, {service.public_key!r}"
            assert far(f"attempt(lambda: connect({place}))").startswith("AuthenticationError")
            enroll(far("key()"), name="far")
            speaks(far, service.endpoint, service.public_key)
            said = far("attempt(lambda: hub.consumer('pump.a'))")
            assert said.startswith("ChannelNotFound")
            assert "`labhub bridge`" in said
            assert far("hub.close()") is None
        assert far.process.returncode == 0
