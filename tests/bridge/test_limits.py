"""What a peer can cost an importing bridge is bounded, and a channel beside it loses nothing (S1, S8, S10)."""

from __future__ import annotations

import logging
import threading

import pytest

from labhub.bridging import export, imports, room
from labhub.bridging.wire import _HEAD, VERSION
from tests.bridge.strangers import Exporter, importing, offer, state, steady
from tests.bridge.test_bridge import numbers, pair

__all__ = ["importing", "pair", "steady"]

PATIENCE = 30
INSTANCE = b"\x11" * 16


def states(bridge) -> list[str]:
    return [i.state for i in bridge.status.imports if i.site == "evil"]


def test_heads_that_announce_much_cost_a_channel_beside_them_nothing(importing, steady, wait_until) -> None:
    there, back, other = importing
    other.export("x", offer())
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)
    for flags in range(8):
        head = _HEAD.pack(VERSION, flags, 4_000, 1, 0, bytes(8), INSTANCE, 0, 0)
        other.send("x", 0, 1, head + b"x")
    wait_until(lambda: state(back, "x") == "refused", PATIENCE)
    assert "instead of" in next(i.detail for i in back.status.imports if i.channel == "x")
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)
    other.send("x", 0, 2)
    with there.consumer("x", "lossless", start="oldest") as c:
        assert numbers(c, 2) == [0, 1]
    steady.check()


# ------------------------------------------------------------------------------------------------------ what is missing


@pytest.mark.parametrize("n_behind", [10, 40, 500])
def test_what_was_lost_on_the_way_is_fetched_however_much_is_behind_it(pair, wait_until, monkeypatch, n_behind) -> None:
    here, there, out, back = pair
    monkeypatch.setattr(export, "MESSAGE_NBYTES", 1)  # each slot travels alone
    with here.producer("x", dtype="i8", capacity=1024) as p, here.producer("beside", dtype="i8") as beside:
        there.wait_for("x", PATIENCE)
        there.wait_for("beside", PATIENCE)
        exported = out._exports._exports["x"]
        put, dropped = exported._put, []

        def bad_cable(message, attachment):
            if message.first_seq in (5, 6) and message.first_seq not in dropped:
                dropped.append(message.first_seq)
            else:
                put(message, attachment)

        monkeypatch.setattr(exported, "_put", bad_cable)
        with (
            there.consumer("x", "lossless", start="oldest") as c,
            there.consumer("beside", "lossless", start="oldest") as d,
        ):
            p.write_many(range(7 + n_behind))
            beside.write_many(range(10))
            assert numbers(c, 7 + n_behind) == list(range(7 + n_behind))
            assert numbers(d, 10) == list(range(10))
            assert c.lost == d.lost == 0
        assert dropped == [5, 6]
        wait_until(lambda: all(i.received == n for i, n in zip(back.status.imports, (10, 7 + n_behind), strict=True)))
        assert back.status.lost == 0


def test_a_reader_that_holds_up_one_channel_does_not_keep_answers_from_another(pair, wait_until, monkeypatch) -> None:
    here, there, out, back = pair
    monkeypatch.setattr(export, "MESSAGE_NBYTES", 1)
    with here.producer("x", dtype="i8", capacity=1024) as p, here.producer("slow", dtype="i8", capacity=8) as slow:
        for name in ("x", "slow"):
            there.wait_for(name, PATIENCE)
        exported = out._exports._exports["x"]
        put, dropped = exported._put, []

        def bad_cable(message, attachment):
            if message.first_seq == 5 and not dropped:
                dropped.append(5)
            else:
                put(message, attachment)

        monkeypatch.setattr(exported, "_put", bad_cable)
        held = there.consumer("slow", "lossless", start="oldest")
        with held, there.consumer("x", "lossless", start="oldest") as c:
            writer = threading.Thread(target=lambda: [slow.write(k) for k in range(200)])
            writer.start()  # its reader here does not read: it holds up the copy until it is evicted
            p.write_many(range(100))
            assert numbers(c, 100) == list(range(100))
            writer.join(PATIENCE)
        assert dropped == [5]
        wait_until(lambda: sum(i.received + i.lost for i in back.status.imports) == 300, PATIENCE)
        assert back.status.lost == 0


def test_a_machine_that_does_not_answer_is_asked_a_few_times_and_then_the_gap_is_counted(
    importing, steady, wait_until, monkeypatch
) -> None:
    there, back, other = importing
    other.export("x", offer())
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)
    other.send("x", 0, 2)
    other.mute = True
    for k in range(50):  # from seq 10 on: eight are missing, and nobody says what became of them
        other.send("x", 10 + k, 1)
    with there.consumer("x", "lossless", start="oldest") as c:
        got = []
        while not got or got[-1] < 59:
            got += c.next_batch(64, 1, PATIENCE, False).data.tolist()
        assert got == [0, 1, *range(10, 60)]
        assert c.lost == 8
    steady.check()


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.fixture
def limited(stack, machine, bridge, endpoint):
    """Make the importing side with limits, and the stranger."""

    def make(**limits):
        there = machine("there")
        back = bridge(there, "office", imports="*/*", listen=endpoint, **limits)
        other = Exporter(endpoint)
        stack.callback(other.session.close)
        return there, back, other

    return make


def test_more_channels_than_there_may_be_are_left_out_until_one_ends(limited, wait_until, caplog) -> None:
    there, back, other = limited(max_channels=4)
    with caplog.at_level(logging.WARNING, "labhub"):
        for k in range(10):
            other.export(f"x{k}", offer())
            wait_until(lambda k=k: len(states(back)) == k + 1, PATIENCE)
        wait_until(lambda: states(back) == ["receiving"] * 4 + ["left out"] * 6, PATIENCE)
    assert "max_channels" in back.status.imports[-1].detail
    assert back.status.problems == ("imports: 6 channels are left out: max_channels is 4",)
    assert "max_channels" in back.status.explain()
    (told,) = (r.getMessage() for r in caplog.records if getattr(r, "event", "") == "imports_left_out")
    assert "evil/x4" in told
    other.withdraw("x9")  # nobody's place
    wait_until(lambda: len(states(back)) == 9, PATIENCE)
    other.end("x1", 0)
    wait_until(lambda: state(back, "x4") == "receiving", PATIENCE)
    assert states(back).count("left out") == 4
    other.send("x4", 0, 3)
    with there.consumer("x4", "lossless", start="oldest") as c:
        assert numbers(c, 3) == [0, 1, 2]


def test_those_whose_names_were_not_kept_come_too(limited, wait_until, monkeypatch) -> None:
    monkeypatch.setattr(imports, "MAX_LEFT_OUT", 1)
    _, back, other = limited(max_channels=1)
    for k in range(4):
        other.export(f"x{k}", offer())
        wait_until(lambda k=k: sum("receiving" in s for s in states(back)) == 1, PATIENCE)
    wait_until(lambda: back.status.problems == ("imports: 3 channels are left out: max_channels is 1",), PATIENCE)
    left = {f"x{k}" for k in range(4)}
    while left:
        wait_until(lambda: any(state(back, x) == "receiving" for x in left), PATIENCE)
        (now,) = (x for x in left if state(back, x) == "receiving")
        other.end(now, 0)
        left.discard(now)


def test_a_hundred_tokens_make_no_hundred_threads(limited, wait_until) -> None:
    _, back, other = limited()
    before = threading.active_count()
    for k in range(100):
        other.export(f"x{k}", offer(capacity=4))
    wait_until(lambda: states(back) == ["receiving"] * 100, PATIENCE)
    ours = [t.name for t in threading.enumerate() if "imports" in t.name]
    assert len(ours) <= imports.THREADS + imports.LOOKERS + 1
    assert threading.active_count() - before <= imports.THREADS + imports.LOOKERS + 100  # Zenoh's, one a queryable


def test_more_memory_than_there_may_be_is_left_out_until_there_is_room(limited, one_ring, wait_until) -> None:
    ring, rings = one_ring, 3
    there, back, other = limited(max_nbytes=rings * ring + ring // 2)
    for k in range(6):
        other.export(f"x{k}", offer(capacity=1024))
    wait_until(lambda: sorted(states(back)) == ["left out"] * 3 + ["receiving"] * 3, PATIENCE)
    (left, *_) = (i for i in back.status.imports if i.state == "left out")
    assert "max_nbytes" in left.detail
    assert len(there.channels()) == 3
    (first, *_) = (i.channel for i in back.status.imports if i.state == "receiving")
    other.end(first, 0)
    wait_until(lambda: states(back).count("receiving") == 3 and states(back).count("left out") == 2, PATIENCE)


@pytest.fixture
def one_ring() -> int:
    """What a ring of 1024 numbers takes."""
    return room.ring_nbytes(1024, 8)


def test_never_more_than_half_of_what_others_leave_of_shared_memory(limited, one_ring, wait_until, monkeypatch) -> None:
    free = [3 * one_ring]
    monkeypatch.setattr(room, "free_nbytes", lambda directory: free[0])
    _, back, other = limited()
    for k in range(3):
        other.export(f"x{k}", offer(capacity=1024))
        wait_until(lambda k=k: len(states(back)) == k + 1 and "waiting" not in states(back), PATIENCE)
        free[0] = 2 * one_ring  # what is taken is not free
    assert states(back) == ["receiving", "left out", "left out"]
    assert "half of what others leave" in back.status.imports[-1].detail
    free[0] = 100 * one_ring
    wait_until(lambda: states(back) == ["receiving"] * 3, PATIENCE)


def test_what_is_left_out_costs_a_channel_beside_it_nothing(importing, steady, wait_until, monkeypatch) -> None:
    _, back, other = importing
    monkeypatch.setattr(back._imports, "_max_channels", 6)
    for k in range(30):
        other.export(f"x{k}", offer())
    wait_until(lambda: states(back).count("receiving") == 5 and states(back).count("left out") == 25, PATIENCE)
    steady.check()


@pytest.mark.parametrize(
    "options", [{"max_channels": 0}, {"max_nbytes": 0}, {"max_channels": 1.5}, {"max_nbytes": "1G"}]
)
def test_wrong_limits(machine, bridge, options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        bridge(machine("here"), "lab", listen="tcp/127.0.0.1:0", **options)
