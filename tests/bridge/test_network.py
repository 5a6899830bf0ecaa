"""Two machines that are network namespaces, with a cable between them that is cut, long, slow, or bad."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bridge.bad_cable import BadCable, bad_ones_can_be_made
from tests.bridge.machines import Machine, assert_unhindered
from tests.faults.network_namespaces import HERE, Cable, Place, can_be_made

PATIENCE = 60
ENDPOINT = f"tcp/{HERE}:7447"
MOST = 1 << 16
"""What a reader that waits for its turn may be behind, which is a whole ring (in slots)."""
LEASE_MS, PATIENT_LEASE_MS = 2000, 10_000
"""After so long without a sign of life Zenoh takes the other side for gone. The second is Zenoh's own: TCP may be
silent for seconds where packets are lost, and a message that was cut off begins anew."""

pytestmark = pytest.mark.skipif(not can_be_made(), reason="network namespaces and virtual cables cannot be made here")


class Pair:
    """Two machines, their cable, and their bridges."""

    def __init__(self, stack: ExitStack, base: Path, kind: type[Cable | BadCable], lease_ms: int) -> None:
        here = Place(stack)
        there = Place(stack, within=here)
        self.cable = kind(here, there)
        self._config = base / "zenoh.json5"
        transport = {"shared_memory": {"enabled": False}, "link": {"tx": {"lease": lease_ms}}}
        quiet = {"scouting": {"multicast": {"enabled": False}}, "listen": {"endpoints": []}}
        self._config.write_text(json.dumps(quiet | {"transport": transport}))
        self.lab, self.office = Machine(here, base, "lab"), Machine(there, base, "office")
        self.export()
        self.office.join(imports="*", connect=ENDPOINT, site="office", config=str(self._config))

    def export(self, **options: object) -> None:
        """Make the bridge of the lab."""
        self.lab.join(exports="*", listen=ENDPOINT, site="lab", config=str(self._config), **options)

    def books(self) -> tuple[str, int]:
        """What the office says of its import, and how many slots it has received or lost."""
        imported = self.office("status()")["imports"][0]
        return imported["state"], imported["received"] + imported["lost"]

    def end(self) -> None:
        """Close everything, so that nothing is left behind."""
        assert self.office("end()")
        assert self.lab("end()")


@pytest.fixture
def pair(private_dirs) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack, private_dirs, Cable, LEASE_MS)


@pytest.fixture
def bad_pair(private_dirs) -> Iterator[Pair]:
    if not bad_ones_can_be_made():
        pytest.skip("TUN devices cannot be made here")
    with ExitStack() as stack:
        yield Pair(stack, private_dirs, BadCable, PATIENT_LEASE_MS)


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
    pair.export(buffer_nbytes=1 << 20)
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
    wait_until(lambda: pair.books() == ("receiving", 200 + n), PATIENCE, "the books of the last slot")
    pair.end()


def test_a_channel_that_ends_during_a_cut_arrives_to_its_end(pair, wait_until) -> None:
    lab, office = pair.lab, pair.office
    lab("produce('x', 200)")
    assert office("read('x', 200)") == [0, 200, 0, 200]
    pair.cable.cut(silently=True)
    assert_unhindered(lab("produce('x', 2000)"))
    assert lab("finish('x')")
    wait_until(lambda: office.state("imports") == "cut", PATIENCE, "the notice of the cut")
    pair.cable.mend(silently=True)
    assert office("read('x', 2200)") == [200, 2000, 0, 2200]
    wait_until(lambda: pair.books() == ("ended", 2200), PATIENCE, "the end")
    pair.end()


@pytest.mark.parametrize(
    "how", [{"delay": 0.04, "jitter": 0.005}, {"loss": 0.05}, {"delay": 0.04, "jitter": 0.005, "loss": 0.05}]
)
def test_a_long_or_a_bad_cable_loses_nothing(bad_pair, how) -> None:
    lab, office, cable = bad_pair.lab, bad_pair.office, bad_pair.cable
    cable.disturb(**how)
    lab("produce('x', 500)")
    assert office("read('x', 500)") == [0, 500, 0, 500]
    assert_unhindered(lab("produce('x', 1000)"))
    assert office("read('x', 1500)") == [500, 1000, 0, 1500]
    if "loss" not in how:  # with it, the question for the clock may go without an answer
        origin = office("origin('x')")
        assert abs(origin["clock_offset_ns"]) <= origin["clock_round_trip_ns"] / 2  # it is one clock
        assert origin["clock_round_trip_ns"] >= 2e9 * (how["delay"] - how["jitter"])
    assert 0.4 < cable.lost / (cable.carried + cable.lost) / how["loss"] < 2.5 if "loss" in how else not cable.lost
    bad_pair.end()


def test_a_very_bad_cable_costs_slots_and_not_the_producer(bad_pair, wait_until) -> None:
    lab, office, cable = bad_pair.lab, bad_pair.office, bad_pair.cable
    assert lab("leave()")
    bad_pair.export(buffer_nbytes=1 << 20)
    lab(f"produce('x', 1000, rate=2000, capacity={MOST})")
    assert office("read('x', 1000)") == [0, 1000, 0, 1000]
    assert lab.state("exports") == "sending"  # a good cable carries 1 MB/s
    cable.disturb(loss=0.3, delay=0.05)

    def given_up() -> bool:
        assert_unhindered(lab("produce('x', 500, rate=5000)"))
        assert lab("producers['x'].next_seq") < MOST, "more would make the office's reader hold up its copy"
        export = lab("status()")["exports"][0]
        return export["state"] == "network cannot keep up" and export["lost"] > 0

    wait_until(given_up, PATIENCE, "more than a bad cable carries")
    wait_until(lambda: cable.lost > 10, PATIENCE, "the loss of packets")
    cable.disturb()
    assert_unhindered(lab("produce('x', 1)"))
    written = lab("producers['x'].next_seq")
    first, got, lost, cursor = office(f"read('x', {written})")
    assert (first, got + lost, cursor) == (1000, written - 1000, written)
    assert lost > 0
    wait_until(lambda: bad_pair.books() == ("receiving", written), PATIENCE, "the books of the last slot")
    bad_pair.end()


def test_what_does_not_wait_for_a_bad_cable_is_counted_to_the_last_slot(bad_pair, wait_until) -> None:
    lab, office, cable = bad_pair.lab, bad_pair.office, bad_pair.cable
    lab("produce('x', 200, lossless=False)")
    assert office("read('x', 200, mode='stream')") == [0, 200, 0, 200]
    cable.disturb(loss=0.05, rate=4e5)
    assert_unhindered(lab("produce('x', 8000, rate=4000)"))
    assert cable.lost > 20
    cable.disturb()
    # What was lost shows with the first slot behind it, which may be lost itself while the queues are full.
    wait_until(lambda: lab("produce('x', 1)") and bad_pair.books()[1] > 8200, PATIENCE, "a slot behind them")
    first, got, lost, cursor = office("read('x', 8200, mode='stream')")
    assert (first, got + lost) == (200, cursor - 200)
    assert lost > 0
    bad_pair.end()


def test_a_channel_that_does_not_wait_for_a_slow_cable_ends(bad_pair, wait_until) -> None:
    lab, office, cable = bad_pair.lab, bad_pair.office, bad_pair.cable
    lab("produce('x', 200, lossless=False)")
    assert office("read('x', 200, mode='stream')") == [0, 200, 0, 200]
    cable.disturb(rate=4e5)
    assert_unhindered(lab("produce('x', 8000, rate=8000)"))
    assert lab("finish('x')")
    wait_until(lambda: bad_pair.books() == ("ended", 8200), PATIENCE, "the end, which is not dropped")
    assert office("status()")["imports"][0]["lost"] > 0
    assert cable.lost > 0
    bad_pair.end()
