"""Two machines that are none: network namespaces, joined by a cable that can be cut. No privileges are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

HERE, THERE = "10.77.0.1", "10.77.0.2"


def can_be_made(*what: str) -> bool:
    """Whether this user may make user and network namespaces, and a virtual cable in there, or what ``ip`` is told."""
    words = what or ("link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    command = ["unshare", "-rn", "ip", *words]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False


class Place:
    """A network namespace, held by a process that sleeps in it."""

    def __init__(self, stack: ExitStack, within: Place | None = None) -> None:
        command = [*(["unshare", "-rn"] if within is None else [*within.enter, "unshare", "-n"]), "sleep", "infinity"]
        self._holder = stack.enter_context(subprocess.Popen(command))
        stack.callback(self._holder.kill)
        outside = within.network if within is not None else os.readlink("/proc/self/ns/net")
        wait_until(lambda: self.network != outside and self._name == "sleep", 30, "a network namespace")
        self._stack = stack

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def network(self) -> str:
        return os.readlink(f"/proc/{self.pid}/ns/net")

    @property
    def _name(self) -> str:
        return Path(f"/proc/{self.pid}/comm").read_text().strip()

    @property
    def enter(self) -> list[str]:
        """The beginning of a command that runs in there."""
        return ["nsenter", "-t", str(self.pid), "--preserve-credentials", "-U", "-n"]

    def ip(self, *words: str) -> None:
        """Run ``ip`` in there."""
        subprocess.run([*self.enter, "ip", *words], check=True, timeout=60)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in there to its end."""
        return subprocess.run([*self.enter, *command], capture_output=True, text=True, check=False, timeout=60)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program in there, which obeys lines; it is killed at the end."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = self._stack.enter_context(subprocess.Popen([*self.enter, *command], text=True, **pipes))
        self._stack.callback(process.kill)
        return process


# One that fails ends at once: waiting for what its threads are at, it would leave who asked without an answer.
LOOP = """
import json, os, sys, traceback
print("ready", flush=True)
try:
    for line in sys.stdin: print(json.dumps(eval(line)), flush=True)
except BaseException:
    traceback.print_exc()
    os._exit(1)
"""


class Python:
    """A Python over there, which evaluates expressions and sends their values back as JSON.

    Words before the command, such as those of ``env``, may give it surroundings of its own.
    """

    def __init__(self, place: Place, program: str, *before: str) -> None:
        self.process = place.start(*before, sys.executable, "-c", program + LOOP)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, expression: str) -> Any:
        """Return the value of an expression."""
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def plug_in(here: Place, there: Place, *devices: str) -> None:
    """Give each place its device, and the device its address."""
    for place, device, address in zip((here, there), devices, (HERE, THERE), strict=True):
        place.ip("link", "set", "lo", "up")
        place.ip("addr", "add", f"{address}/24", "dev", device)
        place.ip("link", "set", "dev", device, "up")


class Cable:
    """What joins two places; one may be told to answer no more, without a word to the other."""

    def __init__(self, here: Place, there: Place) -> None:
        self._here, self._there = here, there
        here.ip("link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", str(there.pid))
        plug_in(here, there, "veth0", "veth1")

    def cut(self, *, silently: bool) -> None:
        """Unplug it over there; or let every packet to there vanish."""
        if silently:
            self._here.ip("route", "add", "blackhole", f"{THERE}/32")
        else:
            self._there.ip("link", "set", "veth1", "down")

    def mend(self, *, silently: bool) -> None:
        """Undo a cut."""
        if silently:
            self._here.ip("route", "del", "blackhole", f"{THERE}/32")
        else:
            self._there.ip("link", "set", "veth1", "up")
