from __future__ import annotations

import json
import os
import re

from labhub.hub import connect


def test_info_for_people_and_for_scripts(broker, labhub):
    shape = {"shape": (64, 8), "dims": ("time", "channel"), "sample_rate": 1e4}
    with (
        connect() as hub,
        hub.producer("daq.raw", dtype="f4", units="V", capacity=16, attrs={"site": "b3"}, **shape) as producer,
        hub.consumer("daq.raw", "lossless"),
        hub.consumer("daq.raw"),
    ):
        for k in range(5):
            producer.write([[float(k)] * 8] * 64)
        text = labhub("info", "daq.raw").stdout
        document = json.loads(labhub("info", "daq.raw", "--json").stdout)
    for line in (
        rf"producer +pid {os.getpid()} on \S+, alive",
        r"value +float32, in V",
        r"slot shape +time 64, channel 8",
        r"sample rate +10000 per second",
        r"note site +b3",
        r"path +/\S+/default/daq\.raw",
        rf"owner +pid {os.getpid()}, alive",
        r"epoch +1",
        r"policy +RING_BUFFER, SEQUENTIAL_SYNC, checksum NONE",
        r"head +5",
        r"slots +11 empty, 5 committed",
        r"bytes written +10240",
        rf"pid {os.getpid()} +lossless, lag 5, received 0, lost 0",
        rf"pid {os.getpid()} +lossy, lag 5, received 0, lost 0",
    ):
        assert re.search(rf"^ +{line}", text, re.MULTILINE), line
    assert document["channel"]["name"] == "daq.raw"
    assert document["segment"]["head"] == 5
    assert document["segment"]["slots"]["committed"] == 5
    assert [reader["kind"] for reader in document["segment"]["readers"]] == ["lossless", "lossy"]
    assert document["why"] == ""


def test_an_unknown_channel_is_3_and_names_the_closest(broker, labhub):
    with connect() as hub, hub.producer("pump.pressure", dtype="f8"):
        for command in ("info", "tail"):
            shown = labhub(command, "pump.presure")
            assert (shown.returncode, shown.stdout, shown.stderr.count("\n")) == (3, "", 1)
            assert "Did you mean 'pump.pressure'?" in shown.stderr


def test_a_channel_on_another_machine_has_no_segment(broker, labhub):
    from labhub import Messenger, ProducerInfo

    metadata = {"shm_dir": "/dev/shm/elsewhere", "boot_id": "another", "shm_dev": 1, "shm_ino": 1}
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        messenger.register_producer("far", ProducerInfo("far", 1, bytes(32), 1, metadata)).result(5)
        document = json.loads(labhub("info", "far", "--json").stdout)
        assert document["segment"] is None
        assert "not on this machine" in document["why"]
        assert "not on this machine" in labhub("info", "far").stdout
        messenger.deregister_producer("far", 1).result(5)
