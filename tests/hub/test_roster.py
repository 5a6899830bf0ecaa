"""What is news to a watch, without a broker or a clock."""

from __future__ import annotations

from typing import Any

import pytest

from labhub.hub.roster import RETURN_GRACE, ChannelEvent, Roster
from labhub.protocol.messages import ChannelEntry, Event, EventKind


def entry(name: str = "c", **fields: Any) -> ChannelEntry:
    defaults = {"shm_name": name, "schema_hash": "00" * 32, "schema_version": 1, "producer_pid": 1}
    return ChannelEntry(channel_name=name, **(defaults | fields))


def event(kind: EventKind, version: int, channel: ChannelEntry | None = None, name: str = "c", **more: Any) -> Event:
    return Event(watch_id="w", serial=0, event=kind, channel_name=name, version=version, channel=channel, **more)


def kinds(news: list[ChannelEvent]) -> list[str]:
    return [f"{e.kind} {e.channel}" for e in news]


def known(*entries: ChannelEntry) -> Roster:
    roster = Roster()
    roster.compare(entries, 0, 0.0, anew=True)
    return roster


def test_a_list_tells_what_is_there_and_then_what_changed() -> None:
    roster = Roster()
    assert kinds(roster.compare([entry("a"), entry("b")], 0, 0.0, anew=True)) == ["appeared a", "appeared b"]
    assert roster.compare([entry("a"), entry("b")], 1, 0.0, anew=False) == []
    assert kinds(roster.compare([entry("b"), entry("c")], 2, 0.0, anew=False)) == ["gone a", "appeared c"]


def test_events_that_a_list_had_in_it_are_no_news() -> None:
    roster = Roster()
    roster.compare([entry()], 5, 0.0, anew=True)
    assert roster.happened(event(EventKind.APPEARED, 5, entry())) == []
    assert roster.happened(event(EventKind.GONE, 4)) == []
    assert kinds(roster.happened(event(EventKind.GONE, 6))) == ["gone c"]
    assert roster.happened(event(EventKind.GONE, 7)) == []
    assert kinds(roster.happened(event(EventKind.APPEARED, 8, entry()))) == ["appeared c"]


@pytest.mark.parametrize(
    ("before", "after", "kind", "detail"),
    [
        ({}, {"age_s": 7.0, "consumers": 3}, None, ""),
        ({}, {"producer_pid": 2}, "appeared", "replaces process 1"),
        ({}, {"schema_hash": "11" * 32}, "schema", ""),
        ({}, {"schema_version": 2, "producer_pid": 2}, "schema", "replaces process 1"),
        ({"metadata": {"schema": "a"}}, {"metadata": {"schema": "b"}}, "schema", ""),
        (
            {"metadata": {"instance_id": "i", "epoch": 1}},
            {"metadata": {"instance_id": "i", "epoch": 2}, "producer_pid": 2},
            "appeared",
            "taken over from process 1",
        ),
        (
            {"metadata": {"instance_id": "i", "epoch": 1}},
            {"metadata": {"instance_id": "j", "epoch": 1}},
            "appeared",
            "replaces process 1",
        ),
    ],
)
@pytest.mark.parametrize("by_list", [True, False])
def test_what_another_registration_is(before: dict, after: dict, kind: str, detail: str, by_list: bool) -> None:
    roster, new = known(entry(**before)), entry(**after)
    news = roster.compare([new], 1, 0.0, anew=True) if by_list else roster.happened(event(EventKind.APPEARED, 1, new))
    assert [(e.kind, e.detail) for e in news] == ([] if kind is None else [(kind, detail)])


def test_a_dead_producer_is_told_once_by_list_and_event() -> None:
    roster = known(entry())
    assert kinds(roster.compare([entry(liveness="dead")], 1, 0.0, anew=False)) == ["producer_died c"]
    assert roster.happened(event(EventKind.PRODUCER_DIED, 2)) == []
    (back,) = roster.compare([entry(liveness="alive")], 3, 0.0, anew=False)
    assert (back.kind, back.detail) == ("appeared", "its producer, process 1, is back")
    assert roster.compare([entry(liveness="alive")], 4, 0.0, anew=False) == []
    assert kinds(roster.happened(event(EventKind.PRODUCER_DIED, 5))) == ["producer_died c"]
    assert kinds(roster.happened(event(EventKind.APPEARED, 6, entry(liveness="alive")))) == ["appeared c"]
    assert kinds(known().compare([entry(liveness="dead")], 1, 0.0, anew=False)) == ["appeared c", "producer_died c"]


def test_a_restarted_broker_has_a_while_to_hear_of_its_channels() -> None:
    roster = known(entry("a"), entry("b"), entry("c"))
    assert roster.compare([entry("a")], 0, 100.0, anew=True) == []
    assert roster.due == 100.0 + RETURN_GRACE
    assert roster.happened(event(EventKind.APPEARED, 1, entry("b"), "b")) == []
    assert roster.compare([entry("a"), entry("b")], 2, 101.0, anew=False) == []  # the grace of c goes on
    assert roster.expire(100.0 + RETURN_GRACE - 0.1) == []
    assert kinds(roster.expire(100.0 + RETURN_GRACE)) == ["gone c"]
    assert roster.due is None


def test_a_checksum_error_is_told_whatever_the_version() -> None:
    news = known(entry()).happened(event(EventKind.CHECKSUM_ERROR, 0, detail="seq 7", producer_pid=3))
    assert news == [ChannelEvent("checksum_error", "c", None, 3, "seq 7")]
    assert repr(news[0]) == "ChannelEvent('checksum_error', 'c')"


def test_what_came_and_went_between_a_gap_and_the_list_is_told() -> None:
    roster = known(entry("a"), entry("b"))
    since = [
        event(EventKind.APPEARED, 1, entry("a"), "a"),  # registered again
        event(EventKind.APPEARED, 2, entry("c"), "c"),
        event(EventKind.GONE, 3, name="c"),
        event(EventKind.CHECKSUM_ERROR, 3, name="a"),  # told in its turn
        event(EventKind.APPEARED, 4, entry("d"), "d"),  # not in the list yet
    ]
    news = roster.compare([entry("a")], 3, 0.0, anew=True, since=since)
    assert kinds(news) == ["appeared c", "gone c"]
    assert kinds([e for later in since for e in roster.happened(later)]) == ["checksum_error a", "appeared d"]
    assert kinds(roster.expire(RETURN_GRACE)) == ["gone b"]
