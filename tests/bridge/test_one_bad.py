"""A bad channel, offer or message: its own status says so, it is asked for again, and the others go on."""

from __future__ import annotations

import logging

import pytest
import zenoh

from labhub.bridging.wire import _HEAD, VERSION
from labhub.schema import Schema
from tests.bad_channels import junk_segment, odd_registration
from tests.bridge.strangers import HUB, RUN, importing, offer, state
from tests.bridge.test_bridge import pair

__all__ = ["importing", "pair"]

PATIENCE = 20
BAD_OFFERS = {
    "checksum": {"checksum_policy": "sometimes"},
    "instance of no digits": {"instance": "xy" * 16},
    "short instance": {"instance": "11" * 8},
    "schema that cannot be parsed": {"schema": '{"dtype":"f8,(","shape":[]}'},
    "schema that is none": {"schema": "[]"},
    "schema of objects": {"schema": '{"dtype":"O","shape":[]}'},
    "too large": {"capacity": 1 << 31, "schema": Schema.infer(dtype="f8", shape=1 << 20).to_json()},
    "no capacity": {"capacity": 0},
    "seq": {"resume": -1},
    "huge seq": {"resume": 1 << 62},
    "version": {"version": VERSION + 1},
    "not a number": {"capacity": "many"},
    "version of long ago": {"version": 0},
    "largest axis": {"schema": '{"dtype":"<f8","shape":[9223372036854775807]}'},
    "dtype of tomorrow": {"schema": '{"dtype":"bfloat16","shape":[]}'},
    "instance of capitals": {"instance": "AB" * 16},
    "run of no digits": {"run": "zz" * 8},
    "negative epoch": {"epoch": -1},
    "large epoch": {"epoch": 1 << 40},
    "negative generation": {"generation": -1},
    "large generation": {"generation": 1 << 64},
    "negative capacity": {"capacity": -5},
    "largest capacity": {"capacity": (1 << 63) - 1},
    "long path": {"path": [HUB] * 1000},
    "long hub on the way": {"path": ["x" * 1000]},
    "long host": {"host": "x" * 1000},
    "long boot id": {"boot_id": "x" * 1000},
    "long": {"schema": '{"dtype":"<f8","shape":[],"attrs":{"note":"' + "x" * 300_000 + '"}}'},
    "endless": {"schema": Schema.infer(dtype="f8").to_json().replace("[]", "[" * 2000 + "]" * 2000)},
}


@pytest.mark.parametrize("changes", BAD_OFFERS.values(), ids=BAD_OFFERS.keys())
def test_a_bad_offer_is_refused_and_asked_for_again_and_the_others_arrive(importing, wait_until, changes) -> None:
    there, back, other = importing
    other.export("bad", offer(**changes))
    wait_until(lambda: state(back, "bad") == "refused", PATIENCE)
    other.export("good", offer())
    wait_until(lambda: state(back, "good") == "receiving", PATIENCE)
    other.send("good", 0, 3)
    with there.consumer("good", "lossless", start="oldest") as c:
        assert next(c.batches(min_slots=3, timeout=PATIENCE)).data.tolist() == [0, 1, 2]
    assert next(i.detail for i in back.status.imports if i.channel == "bad")
    other.offers["bad"] = offer(instance="22" * 16)
    wait_until(lambda: state(back, "bad") == "receiving", PATIENCE)
    assert there.find("bad").capacity == 64


WORDS_OF_A_NEWER_ONE = {
    "checksum": {"checksum_policy": "sometimes"},
    "version": {"version": VERSION + 1},
    "dtype": {"schema": '{"dtype":"bfloat16","shape":[]}'},
}


@pytest.mark.parametrize("changes", WORDS_OF_A_NEWER_ONE.values(), ids=WORDS_OF_A_NEWER_ONE.keys())
def test_what_a_newer_labhub_may_say_is_refused_with_what_to_do(importing, wait_until, changes) -> None:
    _, back, other = importing
    other.export("x", offer(**changes))
    wait_until(lambda: state(back, "x") == "refused", PATIENCE)
    assert "update the " in back.status.imports[0].detail
    assert "here" in back.status.imports[0].detail


def test_fields_that_a_newer_labhub_adds_are_no_trouble(importing, wait_until) -> None:
    _, back, other = importing
    other.export("x", offer(compression="zstd"))
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)


ANNOUNCES_MUCH = _HEAD.pack(VERSION, 0, 4_000, 1, 0, bytes(8), b"\x11" * 16, 2, 2) + b"x"


@pytest.mark.parametrize(
    "attachment", [b"", b"\xff" * 500, bytes(72), ANNOUNCES_MUCH], ids=["none", "noise", "zeros", "announces much"]
)
def test_a_bad_message_does_not_end_the_channel(importing, wait_until, attachment) -> None:
    there, back, other = importing
    other.export("x", offer())
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)
    other.send("x", 0, 2)
    other.send("x", 2, 2, attachment)
    wait_until(lambda: state(back, "x") == "receiving", PATIENCE)
    with there.consumer("x", "lossless", start="oldest") as c:
        assert next(c.batches(min_slots=2, timeout=PATIENCE)).data.tolist() == [0, 1]

        def comes() -> bool:
            other.send("x", 4, 1)
            return there.find("x") and c.lag > 0

        wait_until(comes, PATIENCE)


def test_a_token_of_a_name_that_no_channel_can_have_is_nobodys_trouble(importing, wait_until) -> None:
    _, back, other = importing
    keep = other.session.liveliness().declare_token(f"labhub/evil/{HUB}/{'x' * 300}/alive/{RUN}")
    other.export("good", offer())
    wait_until(lambda: state(back, "good") == "receiving", PATIENCE)
    assert len(back.status.imports) == 1
    del keep


@pytest.fixture
def joined(machine, bridge, endpoint):
    """Two machines, and what makes the bridges between them: not before the channels are there."""
    here, there = machine("here"), machine("there")

    def join():
        out = bridge(here, "lab", exports="*", listen=endpoint)
        back = bridge(there, "office", imports="lab/*", connect=endpoint)
        return out, back

    return here, there, join


def test_a_channel_that_cannot_be_read_here_does_not_keep_the_others_from_being_exported(joined, wait_until) -> None:
    here, there, join = joined
    with here.producer("bad", dtype="i8") as bad, here.producer("good", dtype="i8") as good:
        with junk_segment(here, "bad"), odd_registration("odd", here.name):
            out, _ = join()
            good.write(1)
            there.wait_for("good", PATIENCE)
            wait_until(lambda: any(e.channel == "bad" and "too short" in e.state for e in out.status.exports), PATIENCE)
            assert [e.channel for e in out.status.exports] == ["bad", "good", "odd"]
            assert "too short" in repr(out.status)
        bad.write(7)  # it is tried again
        there.wait_for("bad", PATIENCE)
        with there.consumer("bad", "lossless", start="oldest") as c:
            assert next(c.batches(timeout=PATIENCE)).data.tolist() == [7]


def test_the_other_side_is_told_why_a_channel_does_not_come(joined, wait_until) -> None:
    here, _, join = joined
    with here.producer("bad", dtype="i8"), junk_segment(here, "bad"):
        _, back = join()
        wait_until(lambda: any("too short" in i.detail for i in back.status.imports), PATIENCE)
        (imported,) = back.status.imports
        assert imported.state == "waiting"


def test_a_broken_segment_is_logged_once_and_not_once_a_second(joined, wait_until, caplog) -> None:
    here, _, join = joined
    with caplog.at_level(logging.WARNING, "labhub"), here.producer("bad", dtype="i8"):
        with junk_segment(here, "bad"):
            out, _ = join()
            wait_until(lambda: any("too short" in e.state for e in out.status.exports), PATIENCE)
            export = out._exports._exports["bad"]
            began = export.attempts
            wait_until(lambda: export.attempts >= began + 2, PATIENCE)
        events = [r for r in caplog.records if getattr(r, "event", "") == "export_trouble"]
        assert len(events) == 1


def test_an_export_that_cannot_be_made_is_shown_and_tried_again(pair, wait_until, monkeypatch, failures) -> None:
    """Zenoh refuses nothing that a channel's name can have: here it does for a while."""
    here, there, out, _ = pair
    exports = out._exports
    make, refusing = exports._new, [True]

    def refused(info):
        if info.name == "bad" and refusing:
            raise zenoh.ZError("no room")
        return make(info)

    monkeypatch.setattr(exports, "_new", refused)
    with here.producer("bad", dtype="i8") as bad, here.producer("good", dtype="i8"):
        there.wait_for("good", PATIENCE)
        (shown,) = (e.state for e in out.status.exports if e.channel == "bad")
        assert shown == "ZError: no room"
        refusing.clear()
        bad.write(1)
        there.wait_for("bad", PATIENCE)
    assert failures == ["item_failed: exports, bad: ZError: no room"]
