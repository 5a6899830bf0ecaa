"""The hub between two processes, and all that can go wrong with a name."""

from __future__ import annotations

import gc
import os
import threading
import time

import numpy as np
import pytest

import labhub
from labhub.errors import (
    BrokerUnreachable,
    ChannelBusy,
    ChannelNotFound,
    ClosedError,
    Evicted,
    InvalidArgument,
    InvalidName,
    LabHubError,
    TimeoutExpired,
)
from labhub.hub import connect

PRODUCER = """
    import sys, numpy as np, labhub
    with labhub.connect() as hub, hub.producer("pump.pressure", dtype=np.float64, units="bar", capacity=64) as p:
        print("ready", flush=True)
        for line in sys.stdin:
            p.write(float(line))
"""


def test_slots_travel_from_another_process(hub, run_elsewhere):
    producer = run_elsewhere(PRODUCER)
    info = hub.wait_for("pump.pressure", timeout=20)
    assert info.producer_pid == producer.pid
    assert info.units == {"value": "bar"}
    with hub.consumer("pump.pressure", mode="lossless") as consumer:
        producer.stdin.write("".join(f"{k}\n" for k in range(200)))
        producer.stdin.close()
        batches = list(consumer.batches(timeout=10))
        assert np.concatenate([batch.data for batch in batches]).tolist() == list(range(200))
        assert consumer.lost == 0
        assert consumer.ended
    producer.wait(10)
    assert hub.channels() == []


def test_connect_gives_the_same_hub_while_it_is_open(broker):
    first = connect()
    assert connect() is first
    assert repr(first) == "Hub('default', connected)"
    first.close()
    first.close()
    assert repr(first) == "Hub('default', closed)"
    with pytest.raises(ClosedError, match=r"connect\(\) opens it again"):
        first.channels()
    with connect() as second:
        assert second is not first


def test_without_a_broker_the_error_says_how_to_start_one():
    with pytest.raises(BrokerUnreachable, match=r"labhub broker start` in a terminal.*labhub.connect\(start=True\)"):
        connect()
    with pytest.raises(BrokerUnreachable, match=r"labhub broker start --name lab2`.*connect\('lab2', start=True\)"):
        connect("lab2")


def test_connect_by_endpoint_and_key(broker):
    with connect("by-endpoint", endpoint=broker.endpoint, public_key=broker.public_key) as hub:
        assert hub.channels() == []
        with pytest.raises(InvalidArgument, match="connected elsewhere"):
            connect("by-endpoint", endpoint="tcp://127.0.0.1:1", public_key=broker.public_key)


@pytest.mark.parametrize("bad", [{"endpoint": "tcp://127.0.0.1:1"}, {"public_key": "x" * 40}])
def test_endpoint_and_key_go_together(bad):
    with pytest.raises(InvalidArgument, match="go together"):
        connect(**bad)


@pytest.mark.parametrize("name", ["", "../x", "a b", "a" * 129, "ä", "x\0y"])
def test_bad_names_are_refused_before_anything_happens(hub, name):
    for call in (connect, hub.producer, hub.consumer, hub.wait_for, hub.find, hub.__getitem__):
        with pytest.raises(InvalidName):
            call(name)


def test_an_unknown_channel_names_the_closest_ones(hub):
    with pytest.raises(ChannelNotFound, match="It knows no channel yet"):
        hub.consumer("pump.pressure")
    with hub.producer("pump.pressure", dtype="f8"), hub.producer("pump.presence", dtype="f8"):
        with pytest.raises(ChannelNotFound, match=r"Did you mean 'pump.pressure' or 'pump.presence'\?") as caught:
            hub.consumer("pump.presure")
        assert caught.value.channel == "pump.presure"
        with pytest.raises(ChannelNotFound, match=r"It knows pump.presence, pump.pressure"):
            hub.find("zzz")


def test_channels_are_listed_with_what_they_carry(hub):
    schema = {"dtype": "f4", "shape": (64, 8), "dims": ("time", "channel"), "sample_rate": 1e4, "units": "V"}
    with hub.producer("daq.raw", **schema), hub.producer("pump.on", dtype="?"), hub.consumer("daq.raw"):
        daq, pump = hub.channels()
        assert repr(daq) == "ChannelInfo('daq.raw', float32[64, 8], units={'value': 'V'}, alive)"
        assert repr(pump) == "ChannelInfo('pump.on', bool, alive)"
        assert (daq.producer_pid, daq.consumers, pump.consumers) == (os.getpid(), 1, 0)
        assert daq.schema.sample_rate == 1e4
        assert [channel.name for channel in hub.channels("pump.*")] == ["pump.on"]
        assert hub.channels("nothing*") == []
    with pytest.raises(InvalidArgument, match="pattern"):
        hub.channels("")


def test_readers_are_counted_until_the_last_one_of_a_process_leaves(hub, wait_until):
    with hub.producer("x", dtype="f8"):
        first, second = hub.consumer("x"), hub.consumer("x")
        wait_until(lambda: hub.find("x").consumers == 1)
        first.close()
        first.close()
        assert hub.find("x").consumers == 1
        del second
        wait_until(lambda: hub.find("x").consumers == 0)


def test_wait_for_returns_when_the_channel_comes(hub):
    with (
        hub.producer("lately", dtype="f8"),
        pytest.raises(TimeoutExpired, match=r"'late' did not appear within 0.1 s. Did you mean 'lately'\?"),
    ):
        hub.wait_for("late", timeout=0.1)
    found = []
    waiter = threading.Thread(target=lambda: found.append(hub.wait_for("late", timeout=20)))
    waiter.start()
    with hub.producer("late", dtype="f8"):
        waiter.join(20)
        assert [info.name for info in found] == ["late"]


def test_another_process_gets_channel_busy_with_the_pid(hub, run_elsewhere):
    owner = run_elsewhere(PRODUCER)
    hub.wait_for("pump.pressure", timeout=20)
    for dtype in ("f8", "i4"):
        with pytest.raises(ChannelBusy, match=rf"already has a producer: pid {owner.pid} \(.*python") as caught:
            hub.producer("pump.pressure", dtype=dtype)
        assert caught.value.pid == owner.pid
    owner.communicate("")
    with hub.producer("pump.pressure", dtype="i4"):
        assert hub.find("pump.pressure").producer_pid == os.getpid()


def test_a_notebook_that_holds_the_channel_is_named(hub, run_elsewhere, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ada/pump.ipynb")
    owner = run_elsewhere(PRODUCER)
    hub.wait_for("pump.pressure", timeout=20)
    with pytest.raises(ChannelBusy, match=rf"pid {owner.pid} \(the notebook pump.ipynb\)"):
        hub.producer("pump.pressure", dtype="f8")


def test_a_dead_producer_is_taken_over_and_readers_go_on(hub, run_elsewhere, wait_until):
    first = run_elsewhere(PRODUCER)
    hub.wait_for("pump.pressure", timeout=20)
    with hub.consumer("pump.pressure", mode="lossless") as consumer:
        first.stdin.write("1\n")
        first.stdin.flush()
        stream = consumer.batches(timeout=10)
        assert next(stream).data.tolist() == [1.0]
        first.kill()
        first.wait(60)
        wait_until(lambda: not consumer.producer_alive)
        with hub.producer("pump.pressure", dtype="f8", units="bar", capacity=64) as second:
            assert second.took_over
            second.write(2.0)
            batch = next(stream)
            assert (batch.data.tolist(), batch.epoch, batch.lost) == ([2.0], 2, 0)
            assert hub.find("pump.pressure").producer_pid == os.getpid()
        assert list(stream) == []


def test_a_forgotten_reader_does_not_hold_up_an_experiment(hub):
    with hub.producer("x", dtype="i8", capacity=4) as producer, hub.consumer("x", mode="lossless") as forgotten:
        start = time.monotonic()
        for k in range(10):
            producer.write(k)
        assert 0.9 < time.monotonic() - start < 5.0
        assert producer.stats()["evictions"] == 1
        stream = forgotten.batches(timeout=5)
        with pytest.raises(Evicted) as caught:
            next(stream)
        producer.write(10)
        assert next(stream).data.tolist() == [10]
        assert forgotten.lost == caught.value.lost == 10


def test_how_many_lossless_readers_may_attach(hub):
    with hub.producer("one", dtype="f8", lossless="single"), hub.producer("none", dtype="f8", lossless=False):
        with (
            hub.consumer("one", mode="lossless"),
            hub.consumer("one"),
            pytest.raises(ChannelBusy) as caught,
        ):
            hub.consumer("one", mode="lossless")
        assert caught.value.pid == os.getpid()
        hub.consumer("one", mode="lossless").close()
        with pytest.raises(LabHubError, match="none"):
            hub.consumer("none", mode="lossless")


def test_a_channel_handle_looks_without_being_counted(hub):
    channel = hub["daq"]
    assert repr(channel) == "Channel('daq')"
    with pytest.raises(ChannelNotFound):
        channel.latest()
    with hub.producer("daq", dtype="i4", units="V") as producer:
        with pytest.raises(TimeoutExpired):
            channel.latest(timeout=0.05)
        producer.write_many(np.arange(10, dtype="i4"))
        assert channel.latest().data.tolist() == [9]
        assert channel.snapshot(last=3).data.tolist() == [7, 8, 9]
        data = channel.to_xarray(seconds=60)
        assert data.value.attrs["units"] == "V"
        assert data.sizes["time"] == 10
        assert channel.info.consumers == 0
        with channel.consumer("latest", start="oldest") as consumer:
            assert next(consumer.batches(timeout=5)).data.tolist() == [9]


def test_closing_the_hub_closes_what_it_gave(broker):
    hub = connect()
    producer = hub.producer("x", dtype="f8")
    consumer = hub.consumer("x")
    hub.close()
    assert producer.closed
    assert consumer.closed
    with pytest.raises(ClosedError):
        producer.write(1.0)
    producer.close()
    consumer.close()
    with connect() as again:
        assert again.channels() == []


def test_dropping_the_last_reference_closes(hub, wait_until):
    producer = hub.producer("x", dtype="f8")
    consumer = hub.consumer("x")
    producer.write(1.0)
    stream = consumer.batches(timeout=5)
    del producer
    gc.collect()
    assert [batch.data.tolist() for batch in stream] == [[1.0]]
    wait_until(lambda: hub.channels() == [])


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError", "del producer, hub"])
def test_the_normal_end_of_a_process_is_a_clean_close(hub, run_elsewhere, private_dirs, end, capfd):
    process = run_elsewhere(f"""
        import sys, labhub
        hub = labhub.connect()
        producer = hub.producer("x", dtype="f8")
        reader = hub.consumer("x")
        print(producer.write(1.0), flush=True)
        sys.stdin.read()
        {end}
    """)
    assert process.stdout.readline() == "0\n"
    with hub.consumer("x", start="oldest") as consumer:
        process.stdin.close()
        assert [batch.data.tolist() for batch in consumer.batches(timeout=10)] == [[1.0]]
        process.wait(10)
    assert hub.channels() == []
    assert not (private_dirs / "shm" / "default" / "x").exists()
    assert capfd.readouterr().err.count("Traceback") == (end == "raise ValueError")


def test_closing_ends_an_iteration_in_another_thread(hub):
    with hub.producer("x", dtype="f8") as producer:
        consumer = hub.consumer("x")
        started, rest = threading.Event(), []

        def read():
            for batch in consumer:
                started.set()
                rest.append(batch)

        reader = threading.Thread(target=read)
        reader.start()
        producer.write(1.0)
        assert started.wait(10)
        consumer.close()
        reader.join(10)
        assert not reader.is_alive()
        assert len(rest) == 1
        with pytest.raises(ClosedError, match="ask the hub for a new one"):
            consumer.batches()


def test_a_timeout_names_the_channel_and_the_iteration_goes_on(hub):
    with hub.producer("x", dtype="f8") as producer, hub.consumer("x") as consumer:
        stream = consumer.batches(timeout=0.15)
        with pytest.raises(TimeoutExpired, match=r"'x' within 0.15 s"):
            next(stream)
        producer.write(1.0)
        assert next(stream).data.tolist() == [1.0]


def test_the_names_of_the_package_lead_here():
    assert labhub.connect is connect


@pytest.mark.parametrize("busy_poll", [False, True])
def test_a_reader_polls_if_it_is_asked_to_and_goes_on_when_its_channel_comes_back(hub, busy_poll):
    def used_while_waiting():
        began = time.thread_time()
        with pytest.raises(TimeoutExpired):
            next(c.batches(timeout=0.5))
        return time.thread_time() - began

    first = hub.producer("x", dtype="i8")
    with hub.consumer("x", follow=True, busy_poll=busy_poll) as c:
        assert (used_while_waiting() > 0.1) is busy_poll
        first.close()
        with hub.producer("x", dtype="i8") as second:
            second.write(7)
            assert next(c.batches(timeout=10)).data == 7
            assert (used_while_waiting() > 0.1) is busy_poll
