"""`labhub bridge` in processes of its own."""

from __future__ import annotations

import json
import signal
import subprocess

from labhub.bridging import DEFAULT_MAX_CHANNELS, DEFAULT_MAX_NBYTES
from labhub.hub import connect, named_broker
from tests.bridge.conftest import free_endpoint
from tests.cli.conftest import ANY_PORT, COMMAND


def test_two_bridges_and_their_ends(broker):
    endpoint = free_endpoint()
    there = named_broker("there", ANY_PORT)
    with there as service, connect() as hub, hub.producer("pump", dtype="i8") as p:
        service.start()
        out = [*COMMAND, "bridge", "--export", "pump", "--listen", endpoint, "--site", "lab"]
        back = [
            *COMMAND,
            "bridge",
            "--import",
            "lab/*",
            "--connect",
            endpoint,
            "--site",
            "office",
            "-b",
            "there",
            "--json",
            "--max-channels=1",
            "--max-nbytes=1000000000",
        ]
        with (
            subprocess.Popen(out, stdout=subprocess.PIPE, text=True) as first,
            subprocess.Popen(back, stdout=subprocess.PIPE, text=True) as second,
            connect("there") as far,
        ):
            p.write_many(range(10))
            far.wait_for("pump", 60)
            with far.consumer("pump", start="oldest") as c:
                assert next(c.batches(min_slots=10, timeout=60)).data.tolist() == list(range(10))
            shown = next(
                s for s in map(json.loads, second.stdout) if s["imports"] and s["imports"][0]["state"] == "receiving"
            )
            assert (shown["site"], shown["imports"][0]["site"]) == ("office", "lab")
            assert any("sending" in line for line in first.stdout)
            for process, number in ((second, signal.SIGINT), (first, signal.SIGTERM)):
                process.send_signal(number)
                assert process.wait(30) == 0
            assert far.channels() == []


def test_what_cannot_be(labhub, broker):
    wrong = labhub("bridge", "--export", "*")
    assert wrong.returncode == 1
    assert "needs to know whom to call" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_limits_are_those_of_the_api(labhub, broker):
    told = " ".join(labhub("bridge", "--help").stdout.split())
    assert f"{DEFAULT_MAX_CHANNELS} unless given" in told
    assert f"{DEFAULT_MAX_NBYTES >> 30} GiB unless given" in told
    for option in ("--max-channels=0", "--max-nbytes=x"):
        wrong = labhub("bridge", "--listen", "tcp/127.0.0.1:0", option)
        assert wrong.returncode == 2
        assert option.partition("=")[0] in wrong.stderr
