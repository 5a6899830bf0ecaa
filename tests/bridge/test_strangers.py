"""A scrape, a bridge and a recording at work while strangers are in the broker's way: no slot is lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import labhub
from labhub.hub import named_broker
from tests.bridge.conftest import free_endpoint
from tests.broker.test_unread import ask, deaf
from tests.metrics.conftest import free_port, text

PATIENCE = 60
RULES = '[access.ann]\nconsume = ["*"]\n'
ROUNDS, EACH = 40, 50


def test_no_slot_is_lost_while_strangers_are_in_the_way(
    stack: ExitStack,
    bridge: Callable,
    machine: Callable,
    private_dirs: Path,
    tmp_path: Path,
    wait_until: Callable,
) -> None:
    port, endpoint = free_port(), free_endpoint()
    settings = private_dirs / "config" / "broker-here.toml"
    settings.write_text(RULES)
    service = stack.enter_context(named_broker("here", "tcp://127.0.0.1:0", metrics_port=port)).start()
    here, there = stack.enter_context(labhub.connect("here")), machine("there")
    bridge(here, "lab", exports="*", listen=endpoint)
    bridge(there, "office", imports="lab/*", connect=endpoint).wait_connected(PATIENCE)
    with here.producer("x", dtype="i8", capacity=4096) as p:
        there.wait_for("x", PATIENCE)
        recording = stack.enter_context(here.record("x", store=tmp_path / "run.zarr"))
        far = stack.enter_context(there.consumer("x", "lossless", start="oldest"))
        client = stack.enter_context(deaf(service))
        for k in range(ROUNDS):
            for n in range(EACH):
                p.write(k * EACH + n)
            half = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))  # S3
            half.sendall(b"GET /met")
            settings.write_text("" if k % 2 else RULES)  # S7
            ask(client, 5)  # S9
            for pid in range(20):  # S11
                body = {"channel_name": "x", "consumer_pid": 1 + k * 20 + pid}
                client.send_multipart([b"CONSUMER_REG_REQ", json.dumps(body).encode()])
            if k % 10 == 0:
                assert "labhub_broker_answers 1.0" in text(port)
        got = []
        for batch in far.batches(timeout=PATIENCE):
            got += batch.data.tolist()
            if len(got) == ROUNDS * EACH:
                break
        assert got == list(range(ROUNDS * EACH))
        assert far.lost == 0
        wait_until(lambda: "labhub_settings_refused 1.0" in text(port))
        assert "labhub_scrape_connections 1.0" not in text(port)
    recording.stop()
    assert (recording.status.stored, recording.status.missing) == (ROUNDS * EACH, 0)
