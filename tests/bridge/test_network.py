"""Two machines that are network namespaces, with a cable between them that is cut, long, or bad."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bridge.machines import Machine, assert_unhindered
from tests.faults.network_namespaces import HERE, Cable, Place, can_be_made

PATIENCE = 60
ENDPOINT = f"tcp/{HERE}:7447"
LEASE_MS = 2000
"""After so long without a sign of life Zenoh takes the other side for gone (10 s unless configured)."""

pytestmark = pytest.mark.skipif(not can_be_made(), reason="network namespaces and virtual cables cannot be made here")


class Pair:
    """Two machines, their cable, and their bridges."""

    def __init__(self, stack: ExitStack, base: Path) -> None:
        here = Place(stack)
        there = Place(stack, within=here)
        self.cable = Cable(here, there)
        config = base / "zenoh.json5"
        transport = {"shared_memory": {"enabled": False}, "link": {"tx": {"lease": LEASE_MS}}}
        quiet = {"scouting": {"multicast": {"enabled": False}}, "listen": {"endpoints": []}}
        config.write_text(json.dumps(quiet | {"transport": transport}))
        self.lab, self.office = Machine(here, base, "lab"), Machine(there, base, "office")
        self.lab.join(exports="*", listen=ENDPOINT, site="lab", config=str(config))
        self.office.join(imports="*", connect=ENDPOINT, site="office", config=str(config))
        self._there = there

    def can_be_disturbed(self) -> bool:
        """Whether this kernel has netem."""
        command = [*self._there.enter, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "0ms"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def end(self) -> None:
        """Close everything, so that nothing is left behind."""
        assert self.office("end()")
        assert self.lab("end()")


@pytest.fixture
def pair(private_dirs) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, private_dirs)


@pytest.mark.parametrize("silently", [False, True])
def test_a_cut_that_the_backlog_outlasts_loses_nothing(pair, wait_until, silently) -> None:
    lab, office = pair.lab, pair.office
    lab("produce('x', 200)")
    assert office("read('x', 200)") == [0, 200, 0, 200]
    pair.cable.cut(silently=silently)
    assert_unhindered(lab("produce('x', 2000)"))
    wait_until(lambda: office.state("imports") == "cut", PATIENCE, "the notice of the cut")
    assert_unhindered(lab("produce('x', 2000)"))
    pair.cable.mend(silently=silently)
    assert office("read('x', 4200)") == [200, 4000, 0, 4200]
    assert lab("produce('x', 100)")
    assert office("read('x', 4300)") == [4200, 100, 0, 4300]
    assert office.state("imports") == "receiving"
    pair.end()


def test_a_cut_that_outlasts_the_backlog_is_counted_to_the_last_slot(pair, wait_until) -> None:
    lab, office = pair.lab, pair.office
    assert lab("leave()")
    lab.join(exports="*", listen=ENDPOINT, site="lab", buffer_nbytes=1 << 20)
    lab("produce('x', 200)")
    assert office("read('x', 200)") == [0, 200, 0, 200]
    pair.cable.cut(silently=True)
    wait_until(lambda: office.state("imports") == "cut", PATIENCE, "the notice of the cut")
    n = 20_000
    assert_unhindered(lab(f"produce('x', {n})"))
    assert lab("status()")["exports"][0]["lost"] > n / 2
    pair.cable.mend(silently=True)
    first, got, lost, cursor = office(f"read('x', {200 + n})")
    assert (first, got + lost, cursor) == (200, n, 200 + n)
    assert lost > n / 2
    imported = office("status()")["imports"][0]
    assert imported["received"] + imported["lost"] == 200 + n
    pair.end()


@pytest.mark.parametrize("how", ["delay 40ms 5ms", "loss 5%"])
def test_a_long_or_a_bad_cable_loses_nothing(pair, how) -> None:
    if not pair.can_be_disturbed():
        pytest.skip("this kernel has no netem")
    lab, office = pair.lab, pair.office
    pair.cable.disturb(*how.split())
    lab("produce('x', 500)")
    assert office("read('x', 500)") == [0, 500, 0, 500]
    assert_unhindered(lab("produce('x', 4000)"))
    assert office("read('x', 4500)") == [500, 4000, 0, 4500]
    origin = office("origin('x')")
    assert abs(origin["clock_offset_ns"]) <= origin["clock_round_trip_ns"] / 2  # it is one clock
    if "delay" in how:
        assert origin["clock_round_trip_ns"] > 60e6
    pair.end()
