from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest

from labhub import runtime
from labhub.logs import BURST, WINDOW, JsonFormatter, Sieve, TextFormatter, event
from labhub.protocol.broker_state import BrokerState, Peer
from labhub.protocol.messages import MAX_MESSAGE_NBYTES
from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, load_key


@pytest.fixture
def lines():
    """A logger, and a function that returns what it has logged as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("labhub.test")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_record_is_one_line_of_json(lines):
    logger, read = lines
    logger.info("channel %s\nregistered", "x", extra=event("channel_registered", channel="x", pid=7, raw=b"\xff"))
    logger.warning("without an event")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed", extra=event("failed"))
    first, second, third = read()
    assert first | {"time": ""} == {
        "time": "", "level": "info", "logger": "labhub.test", "event": "channel_registered",
        "message": "channel x\nregistered", "fields": {"channel": "x", "pid": 7, "raw": "/w=="},
    }  # fmt: skip
    assert first["time"].endswith("+00:00")
    assert (second["event"], second["fields"]) == (None, {})
    assert third["traceback"].endswith("ValueError: bad")


def test_a_record_for_people_is_one_line_that_orders_nothing(lines):
    logger, _ = lines
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    logger.addHandler(handler)
    try:
        logger.warning("field %s of 'Temp °C'\n[ERROR] labhub: forged", "\x1b[2J\u202e", extra=event("odd"))
        try:
            raise ValueError("bad\n[ERROR] labhub: forged\x07")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    first, *rest = stream.getvalue().splitlines()
    assert first == r"[WARNING] labhub.test: field \x1b[2J\u202e of 'Temp °C'\n[ERROR] labhub: forged"
    assert rest[0] == "[ERROR] labhub.test: failed"
    assert rest[-1].startswith(r"    [ERROR] labhub: forged\x07")
    assert all(line.startswith("    ") for line in rest[1:])


def test_json_of_a_log_is_exact_and_orders_nothing(lines):
    logger, read = lines
    text = "\x1b[2J\x9b31m\u202e\U000e0041 °C \n"
    logger.warning("%s", text, extra=event("odd", text=text, raw=f"no UTF-8: \udcff {text}"))
    logger.warning("%s", text, extra=event("odd", text=text))
    for line in read():
        assert line["message"] == text
        assert line["fields"]["text"] == text
    (handler,) = logger.handlers
    assert all(line.isprintable() for line in handler.stream.getvalue().splitlines())


def test_a_flood_of_one_event_is_held_back_and_counted(lines):
    logger, read = lines
    now = [0.0]
    sieve = Sieve(lambda: now[0])
    logger.addFilter(sieve)
    try:
        for k in range(1000):
            logger.warning("refused", extra=event("refused", k=k))
        logger.warning("something else", extra=event("other"))
        now[0] = WINDOW
        logger.warning("refused", extra=event("refused", k=-1))
    finally:
        logger.removeFilter(sieve)
    *early, other, late = read()
    assert [line["fields"]["k"] for line in early] == list(range(BURST))
    assert other["event"] == "other"
    assert late["fields"] == {"k": -1, "suppressed": 1000 - BURST}


def test_garbage_does_not_flood_the_log_of_a_broker(caplog):
    caplog.set_level(logging.DEBUG)
    state = BrokerState(probe=lambda _: "unknown")
    for k in range(10_000):
        state.receive(Peer(b"r", "k"), [b"X" * 200, bytes([k % 256]) * (k % 999)], 0.0)
    state.receive(Peer(b"r", "k"), [b"x" * (2 * MAX_MESSAGE_NBYTES + 1)], 0.0)
    refusals = [record for record in caplog.records if getattr(record, "event", "") == "request_refused"]
    assert len(refusals) <= BURST
    assert all(len(record.getMessage()) < 500 for record in caplog.records)


def test_the_log_of_a_broker_process(wait_until):
    command = [sys.executable, "-m", "labhub.cli", "broker", "run", "--listen", "tcp://127.0.0.1:0"]
    process = subprocess.Popen([*command, "--log-format", "json"], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        wait_until(runtime.find_live, 60)
        running = runtime.find_live()
    finally:
        process.terminate()
        said, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == b""
    first, *_, last = map(json.loads, log.splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("broker_listening", "info", "labhub.broker")
    expected = {"endpoint": running.endpoint, "public_key": running.public_key, "pid": process.pid}
    assert first["fields"] == expected
    assert (last["event"], last["fields"]) == ("broker_stopped", {"endpoint": running.endpoint})
    assert not any(load_key(name).secret.encode() in log for name in (CLIENT_KEY, SERVER_KEY))
