from __future__ import annotations

import json

import numpy as np
import pytest

from labhub import Messenger, ProducerInfo
from labhub.broker import BrokerConfig, BrokerService
from labhub.errors import BackpressureTimeout, ChannelNotFound, QuotaExceeded
from labhub.hub import connect, named_broker

ANY_PORT = "tcp://127.0.0.1:0"


def test_one_word_with_facts_behind_it(hub, broker):
    status = hub.status
    assert status == "connected"
    assert f"{status}" == "connected"
    assert hub.connected
    assert status in {"connected", "connecting"}
    assert repr(status) == "HubStatus('connected', producers=0, consumers=0, rejected=0)"
    assert (status.endpoint, status.reconnects) == (broker.endpoint, 0)
    assert status.since_s >= 0
    assert status.free_nbytes > 0


def test_its_own_producers_and_consumers_are_in_it(hub):
    with (
        hub.producer("b", dtype="f8", capacity=4, timeout=0.05, evict_after=None) as producer,
        hub.producer("a") as later,
        hub.consumer("b", mode="lossless") as slow,
        hub.consumer("b") as lapped,
    ):
        producer.write_many(np.zeros(4))
        with pytest.raises(BackpressureTimeout):
            producer.write(0.0)
        next(slow.batches())
        producer.write_many(np.zeros(3))
        status = hub.status
        assert [(p.channel, p.registered, p.written, p.timeouts) for p in status.producers] == [
            ("a", False, 0, 0),
            ("b", True, 7, 1),
        ]
        assert status.producers[1].waits >= 1
        assert status.producers[1].waited_s > 0.04
        assert {(c.mode, c.lag, c.lost) for c in status.consumers} == {("lossless", 3, 0), ("stream", 7, 0)}
        next(lapped.batches())
        assert hub.status.lost == lapped.lost == 3
        assert json.loads(json.dumps(hub.status.to_dict()))["consumers"][0]["channel"] == "b"
        html, text = hub.status._repr_html_(), hub.status.explain()
        for words in ("waited", "lag 3", "lossless", "not registered", "free memory"):
            assert words in html
            assert words in text
        assert repr(hub.status) == "HubStatus('connected', producers=2, consumers=2, rejected=0)"
        assert later.schema is None
    assert hub.status.producers == hub.status.consumers == ()
    hub.close()
    assert (hub.status, hub.status.endpoint) == ("disconnected", "")


def test_a_removed_segment_is_told_and_not_raised(hub, private_dirs):
    with hub.producer("x", dtype="f8"):
        (private_dirs / "shm" / "default" / "x").unlink()
        assert "cannot open the segment" in hub.status.producers[0].trouble


def test_what_the_broker_refuses_is_in_it_until_it_is_withdrawn():
    with BrokerService(BrokerConfig(ANY_PORT, max_channels_per_key=1)) as broker, Messenger() as messenger:
        assert messenger.connection is None
        messenger.connect(broker.endpoint, broker.public_key)
        info = ProducerInfo("x", 1, bytes(32), 1)
        messenger.register_producer("one", info).result(5)
        with pytest.raises(QuotaExceeded):
            messenger.register_producer("two", info).result(5)
        connection = messenger.connection
        assert connection.registered == ("one",)
        assert "may register 1 channels" in connection.rejected["two"]
        with pytest.raises(ChannelNotFound):
            messenger.deregister_producer("two").result(5)
        assert messenger.connection.rejected == {}


def test_a_broker_that_goes_and_comes_back_is_counted_and_logged(wait_until, caplog):
    caplog.set_level("INFO")
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        hub = connect()
        before = hub.status
    wait_until(lambda: not hub.connected)
    away = hub.status
    assert away == "connecting"
    assert away.endpoint == before.endpoint
    with named_broker(endpoint=ANY_PORT) as service:
        service.start()
        wait_until(lambda: hub.connected, 20)
        wait_until(lambda: hub.status.reconnects == 1)
        assert hub.status.endpoint == service.endpoint
        hub.close()
    events = [record.event for record in caplog.records if record.name == "labhub.messenger.worker"]
    assert events == ["broker_lost", "broker_moved", "broker_reached"]
