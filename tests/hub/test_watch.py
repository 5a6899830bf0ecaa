"""Watching channels: through restarts, interrupts, closes, and with nobody reading."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading

import pytest

from labhub import runtime
from labhub.errors import (
    BrokerUnreachable,
    ClosedError,
    ConcurrentUseError,
    InvalidArgument,
    QuotaExceeded,
    TimeoutExpired,
)
from labhub.hub import connect, named_broker, start_broker, stop_broker
from labhub.hub.roster import RETURN_GRACE
from labhub.hub.watching import MAX_UNREAD, Inbox
from labhub.protocol.client_state import Gap
from labhub.protocol.messages import Event, EventKind
from tests.bad_channels import odd_registration
from tests.hub.test_trouble import ANY_PORT


def told(watch, n):
    return [f"{event.kind} {event.channel}" for event in (next(watch) for _ in range(n))]


def nothing_more(watch, seconds=0.3):
    watch._timeout = seconds
    with pytest.raises(TimeoutExpired):
        next(watch)


def test_what_is_there_then_what_happens(hub):
    with hub.producer("a", dtype="f8", units="V"), hub.watch(timeout=10) as watch:
        event = next(watch)
        assert repr(event) == "ChannelEvent('appeared', 'a')"
        assert event.info.units == {"value": "V"}
        assert (event.pid, event.detail) == (os.getpid(), "")
        producer = hub.producer("b", dtype="f8")
        producer.close()
        assert told(watch, 2) == ["appeared b", "gone b"]
        nothing_more(watch)


def test_without_what_is_there_and_only_what_matches(hub):
    with hub.producer("pump.a", dtype="f8") as first:
        watch = hub.watch("pump.*", existing=False, timeout=10)
        hub.producer("other", dtype="f8").close()
        first.close()
        assert told(watch, 1) == ["gone pump.a"]
        watch.close()


def test_another_schema_of_a_cell_is_a_channel_that_comes_back(hub):
    with hub.watch(timeout=10) as watch:
        producer = hub.producer("x", dtype="f8")
        producer = hub.producer("x", dtype="f4")
        assert told(watch, 3) == ["appeared x", "gone x", "appeared x"]
        producer.close()


def test_a_killed_producer_and_the_one_that_takes_over(hub, run_elsewhere):
    program = """
        import sys, labhub
        hub = labhub.connect()
        producer = hub.producer("x", dtype="f8")
        print("ready", flush=True)
        sys.stdin.read()
    """
    with hub.watch(timeout=20) as watch:
        first = run_elsewhere(program)
        assert told(watch, 1) == ["appeared x"]
        os.kill(first.pid, signal.SIGKILL)
        first.wait(10)
        event = next(watch)
        assert (event.kind, event.pid) == ("producer_died", first.pid)
        second = run_elsewhere(program)
        event = next(watch)
        assert (event.kind, event.pid, event.detail) == (
            "appeared",
            second.pid,
            f"taken over from process {first.pid}",
        )
        second.stdin.close()
        second.wait(10)
        assert told(watch, 1) == ["gone x"]


def test_a_restarted_broker_goes_unnoticed(wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        hub = connect()
        producers = [hub.producer(f"x{k}", dtype="f8") for k in range(3)]
        watch = hub.watch(timeout=20)
        assert told(watch, 3) == ["appeared x0", "appeared x1", "appeared x2"]
    wait_until(lambda: hub.status != "connected")
    producers[0].close()
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        # What was closed meanwhile is gone; what went on is not told again; what is new is.
        wait_until(lambda: hub.status == "connected")
        late = hub.producer("x3", dtype="f8")
        assert sorted(told(watch, 2)) == ["appeared x3", "gone x0"]
        nothing_more(watch)
        for producer in (*producers, late):
            producer.close()
        watch._timeout = 10
        assert sorted(told(watch, 3)) == ["gone x1", "gone x2", "gone x3"]
        hub.close()
        assert list(watch) == []


@pytest.fixture
def endless_broker():
    """A broker process that can be killed; whichever runs in the end is stopped."""
    yield start_broker(endpoint=ANY_PORT)
    stop_broker()


def test_a_broker_that_is_killed_again_and_again(endless_broker, wait_until):
    broker = endless_broker
    with connect() as hub:
        producers = [hub.producer(f"x{k}", dtype="f8") for k in range(5)]
        watch = hub.watch(existing=False, timeout=20)
        for k in range(3):
            os.kill(broker.pid, signal.SIGKILL)
            wait_until(lambda: hub.status != "connected" and runtime.find_live() is None)
            assert producers[0].write(1.0) == k
            broker = start_broker(endpoint=ANY_PORT)
            wait_until(lambda: hub.status == "connected", 20)
            hub.producer(f"new{k}", dtype="f8").close()
            assert told(watch, 2) == [f"appeared new{k}", f"gone new{k}"]
        nothing_more(watch, RETURN_GRACE + 1)
        assert [channel.name for channel in hub.channels()] == [f"x{k}" for k in range(5)]


@pytest.mark.parametrize("close", ["watch", "hub"])
def test_closing_from_another_thread_ends_the_iteration(broker, close):
    with connect() as hub:
        watch = hub.watch()
        waiting = threading.Thread(target=lambda: list(watch))
        waiting.start()
        (watch if close == "watch" else hub).close()
        waiting.join(5)
        assert not waiting.is_alive()
        assert watch.closed
        assert repr(watch) == "Watch('*', closed)"
        assert list(watch) == []
        watch.close()
        with pytest.raises(ClosedError, match="makes another one"), watch:
            pass


def test_async_for_and_a_cancelled_wait(hub):
    async def read():
        seen = []
        watch = hub.watch()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.2)
        producer = hub.producer("x", dtype="f8")
        async for event in watch:
            seen.append(event.kind)
            if event.kind == "gone":
                watch.close()
            else:
                producer.close()
        return seen

    assert asyncio.run(read()) == ["appeared", "gone"]


def test_two_threads_cannot_wait_for_one_watch(hub, wait_until):
    with hub.watch() as watch:
        waiting = threading.Thread(target=lambda: list(watch))
        waiting.start()
        wait_until(watch._in_use.locked)
        with pytest.raises(ConcurrentUseError):
            next(watch)
        watch.close()
        waiting.join(5)


def test_dropping_the_last_reference_ends_it(hub, wait_until):
    watch = hub.watch()
    assert hub._messenger.query_metrics().values["watches"] == 1
    del watch
    gc.collect()
    wait_until(lambda: hub._messenger.query_metrics().values["watches"] == 0)


def test_what_nobody_reads_is_bounded_and_told_in_the_end(hub):
    with hub.watch(timeout=10) as watch:
        for _ in range(MAX_UNREAD):
            watch._inbox.put(Event(watch_id="", serial=0, event=EventKind.GONE, channel_name="z"))
        with hub.producer("x", dtype="f8"):
            assert told(watch, 1) == ["appeared x"]
            assert not watch._inbox._items


def test_an_inbox_that_overflows_remembers_that_the_broker_was_new():
    inbox = Inbox()
    inbox.put(Gap(anew=True))
    for k in range(MAX_UNREAD):
        inbox.put(Event(watch_id="", serial=k, event=EventKind.GONE, channel_name="z"))
    assert inbox.first(0) == Gap(anew=True)
    assert len(inbox._items) == 1


def test_a_broker_that_is_away(wait_until):
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        hub = connect(timeout=0.2)
        watch = hub.watch(timeout=0.3)
    wait_until(lambda: hub.status != "connected")
    with pytest.raises(BrokerUnreachable):
        hub.watch()
    watch._inbox.put(Gap(anew=False))  # events were lost, and nobody can tell which
    with pytest.raises(TimeoutExpired):
        next(watch)
    hub.close()
    assert list(watch) == []


@pytest.mark.parametrize("bad", [{"pattern": ""}, {"pattern": 7}, {"timeout": -1}, {"timeout": "soon"}])
def test_wrong_arguments(hub, bad):
    with pytest.raises(InvalidArgument):
        hub.watch(**bad)
    assert hub._messenger.query_metrics().values["watches"] == 0


def test_too_many_watches(hub):
    watches = [hub.watch() for _ in range(256)]
    with pytest.raises(QuotaExceeded, match="256 watches"):
        hub.watch()
    watches.pop().close()
    hub.watch().close()
    for watch in watches:
        watch.close()


def test_a_registration_that_makes_no_sense_does_not_end_a_watch(hub):
    with hub.watch(timeout=5) as watch:
        with odd_registration("odd", origin=[1], ring_buffer_capacity="many", instance_id=7):
            with hub.producer("pump", dtype="f8"):
                assert told(watch, 2) == ["appeared odd", "appeared pump"]
                found = {info.name: info for info in hub.channels()}
                assert (found["odd"].schema, found["odd"].capacity, found["odd"].origin) == (None, None, None)
                assert found["pump"].schema is not None
            assert told(watch, 1) == ["gone pump"]
        assert told(watch, 1) == ["gone odd"]
