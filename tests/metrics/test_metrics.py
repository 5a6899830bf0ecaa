"""The Prometheus endpoint of a broker: what it says is true, it is bounded, and it is nobody's trouble."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

import labhub
from labhub import Messenger, ProducerInfo
from labhub.broker import BrokerService
from labhub.errors import AccessDenied, AuthenticationError, BrokerUnreachable, ChannelNotFound
from labhub.hub import Hub, connect, named_broker
from labhub.hub import metrics as room
from labhub.transport.curve import KeyPair
from labhub.transport.keys import enroll
from tests.bad_channels import junk_segment, odd_registration
from tests.metrics.conftest import ANY_PORT, ROOT, text

Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[str, Labels], float]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape looks anew."""
    monkeypatch.setattr(room, "MIN_INTERVAL", 0.0)


@pytest.fixture
def broker(port: int) -> Iterator[BrokerService]:
    with named_broker(endpoint=ANY_PORT, metrics_port=port) as service:
        yield service.start()


@pytest.fixture
def hub(broker: BrokerService) -> Iterator[Hub]:
    with connect() as hub:
        yield hub


def scrape(port: int) -> Values:
    families = text_string_to_metric_families(text(port))
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def of(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, tuple(sorted(labels.items()))))


def test_what_it_says_of_a_channel_is_true(hub: Hub, port: int) -> None:
    before = time.time()
    with hub.producer("x", like=1.0, capacity=4, evict_after=0.01) as producer, hub.consumer("x") as lossy:
        stuck = hub.consumer("x", mode="lossless")
        for k in range(10):
            producer.write(float(k))
        found = scrape(port)
        assert of(found, "labhub_slots_committed_total", channel="x") == 10
        assert of(found, "labhub_written_bytes_total", channel="x") == 80
        assert of(found, "labhub_capacity_slots", channel="x") == 4
        assert of(found, "labhub_producer_alive", channel="x") == 1
        assert of(found, "labhub_evictions_total", channel="x") == 1
        assert of(found, "labhub_writes_blocked_total", channel="x") >= 1
        assert of(found, "labhub_write_blocked_seconds_total", channel="x") > 0
        assert before - 1 <= of(found, "labhub_last_commit_timestamp_seconds", channel="x") <= time.time() + 1
        assert of(found, "labhub_reader_lag_slots", channel="x", kind="lossy") == 10
        assert next(lossy.batches(timeout=5)).lost == 6
        # It does not know yet that it was evicted, and its lag is nobody's any more.
        assert of(found, "labhub_reader_lag_slots", channel="x", kind="lossless") is None
        stuck.close()
        found = scrape(port)
        assert of(found, "labhub_reader_lost_slots", channel="x", kind="lossy") == 6
        assert of(found, "labhub_reader_lag_slots", channel="x", kind="lossy") == 0
        assert of(found, "labhub_readers", channel="x", kind="lossy") == 1
        assert of(found, "labhub_readers", channel="x", kind="lossless") is None
    assert of(scrape(port), "labhub_slots_committed_total", channel="x") is None


def test_what_it_says_of_the_broker_is_true(broker: BrokerService, hub: Hub, port: int, private_dirs: Path) -> None:
    found = scrape(port)
    assert of(found, "labhub_broker_answers") == 1
    assert of(found, "labhub_build_info", version=labhub.__version__) == 1
    # The stranger of its self-test is none.
    assert of(found, "labhub_handshakes_rejected_total") == 0
    with Messenger(KeyPair.random()) as stranger, pytest.raises(AuthenticationError):
        stranger.connect(broker.endpoint, broker.public_key)
    with pytest.raises(ChannelNotFound):
        hub.schema("nowhere")
    with hub.producer("x", like=1.0), hub.consumer("x"), hub.watch():
        hub.channels()
        found = scrape(port)
        assert of(found, "labhub_handshakes_rejected_total") >= 1
        assert of(found, "labhub_requests_refused_total", code="CHANNEL_NOT_FOUND") == 1
        assert of(found, "labhub_registrations_total") == 1
        names = ("labhub_channels", "labhub_consumers", "labhub_watches")
        assert [of(found, name) for name in names] == [1, 1, 1]
        assert of(found, "labhub_channels_dead") == of(found, "labhub_channels_left_out") == 0
    assert of(found, "process_resident_memory_bytes") > 1e6


def test_settings_that_are_refused_are_seen(hub: Hub, port: int, private_dirs: Path, wait_until: Callable) -> None:
    assert of(scrape(port), "labhub_settings_refused") == 0
    (private_dirs / "config" / "broker-default.toml").write_text("x = 1")
    wait_until(lambda: of(scrape(port), "labhub_settings_refused") == 1)
    assert of(scrape(port), "labhub_settings_reads_total") == 1


def test_only_so_many_channels_have_series(private_dirs: Path, port: int) -> None:
    (private_dirs / "config" / "broker-default.toml").write_text(f"[metrics]\nport = {port}\nmax_channels = 2\n")
    with named_broker(endpoint=ANY_PORT) as service, service, connect() as hub:
        producers = [hub.producer(name, like=1.0, capacity=8) for name in "cab"]
        found = scrape(port)
        assert {labels for name, labels in found if name == "labhub_capacity_slots"} == {
            (("channel", "a"),),
            (("channel", "b"),),
        }
        assert of(found, "labhub_channels_left_out") == 1
        for producer in producers:
            producer.close()


def test_a_channel_of_another_machine_has_no_series_and_harms_none(broker: BrokerService, hub: Hub, port: int) -> None:
    with Messenger() as messenger:
        assert messenger.connect(broker.endpoint, broker.public_key)
        for name, metadata in {
            "far": {"shm_dir": "/nowhere", "boot_id": "x"},
            "unmade": {},
            "odd": {"shm_dir": 7},
        }.items():
            messenger.register_producer(name, ProducerInfo(name, 1, bytes(32), 1, metadata)).result(5)
        found = scrape(port)
    assert of(found, "labhub_channels") == 3
    assert not [name for name, labels in found if ("channel", "far") in labels]


def test_who_asks_too_often_gets_the_same(broker: BrokerService, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MIN_INTERVAL", 60.0)
    looks: list[float] = []
    looked = broker._state.metrics  # type: ignore[union-attr]
    monkeypatch.setattr(broker._state, "metrics", lambda now: looks.append(now) or looked(now))
    first, second = (of(scrape(port), "labhub_broker_uptime_seconds") for _ in range(2))
    assert first == second
    assert len(looks) == 1


def test_a_broker_that_does_not_serve_is_told_in_time() -> None:
    service = BrokerService()
    with room.serve(lambda: service.look(0.2), "127.0.0.1", 0, 10) as port:
        began = time.monotonic()
        found = scrape(port)
        assert time.monotonic() - began < 5
        assert of(found, "labhub_broker_answers") == 0
        assert of(found, "labhub_channels") is None


def test_it_listens_on_the_loopback_only_and_is_gone_with_its_broker(port: int) -> None:
    with named_broker(endpoint=ANY_PORT, metrics_port=port) as service:
        service.start()
        listening = [c.laddr for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        assert [place.ip for place in listening if place.port == port] == ["127.0.0.1"]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_is_a_typed_error_and_leaves_no_broker(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)), pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}"):
        with named_broker(endpoint=ANY_PORT, metrics_port=port):
            raise AssertionError
    with named_broker(endpoint=ANY_PORT, metrics_port=port) as service:
        service.start()


def test_it_is_off_and_not_even_imported_unless_it_is_wanted() -> None:
    program = """
import sys
from labhub.hub import named_broker
from labhub.errors import MissingDependency
with named_broker(endpoint="tcp://127.0.0.1:0") as service:
    service.start()
assert "prometheus_client" not in sys.modules
sys.modules["prometheus_client"] = None
try:
    with named_broker(endpoint="tcp://127.0.0.1:0", metrics_port=0): pass
except MissingDependency as error:
    print(error.package, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "prometheus_client metrics need prometheus_client; run: pip install 'labhub[metrics]'\n"
    assert done.stderr == ""


def test_a_guest_reads_them_only_where_he_administers(broker: BrokerService, private_dirs: Path) -> None:
    key = KeyPair.random()
    enroll(key.public, name="ann")
    (private_dirs / "config" / "broker-default.toml").write_text('[access.ann]\nconsume = ["*"]\n')
    broker.reload()
    with Messenger(key) as ann:
        assert ann.connect(broker.endpoint, broker.public_key)
        with pytest.raises(AccessDenied, match="administer"):
            ann.query_metrics()


# --------------------------------------------------------------------------------------------- names, dashboard, unit


@pytest.fixture
def names(hub: Hub, port: int) -> dict[str, str]:
    """The type of each metric that there is."""
    with hub.producer("x", like=1.0, capacity=8), hub.consumer("x"), pytest.raises(ChannelNotFound):
        hub.schema("nowhere")
    with hub.producer("x", like=1.0, capacity=8), hub.consumer("x"):
        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text(port), flags=re.M))


def test_names_follow_the_conventions_of_prometheus(names: dict[str, str]) -> None:
    for name, kind in names.items():
        assert re.fullmatch(r"(labhub|process)(_[a-z]+)+", name), name
        assert (kind == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ns|ms|us|s|mb|kb)(_|$)", name), name


def test_the_document_has_every_metric_and_no_other(names: dict[str, str]) -> None:
    document = (ROOT / "docs" / "metrics.md").read_text()
    told = dict(re.findall(r"^\| `(labhub_\w+)` \| (\w+) \|", document, flags=re.M))
    assert told == {name: kind for name, kind in names.items() if name.startswith("labhub")}


def test_the_dashboard_asks_only_for_what_there_is(names: dict[str, str], board: Any) -> None:
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 15
    for expression in expressions:
        asked = re.findall(r"\b(?:labhub|process)_\w+", expression)
        assert asked, expression
        for name in asked:
            assert name in names, expression
            assert (f"rate({name}" in expression or f"increase({name}" in expression) == (names[name] == "counter")
    labels = {label for e in expressions for label in re.findall(r"[{,](\w+)=", e)}
    assert labels == {"instance", "channel"}
    variables = {v["name"]: v for v in board["templating"]["list"]}
    assert variables.keys() == {"datasource", "instance", "channel"}
    queries = [v["query"]["query"] for v in variables.values() if v["type"] == "query"]
    assert all(m in names for query in queries for m in re.findall(r"labhub_\w+", query))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool: apt-get install prometheus")
def test_promtool_objects_to_nothing(hub: Hub, port: int) -> None:
    with hub.producer("x", like=1.0, capacity=8), hub.consumer("x"):
        check = subprocess.run(
            ["promtool", "check", "metrics"], input=text(port), capture_output=True, text=True, timeout=60
        )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


UNIT = ROOT / "examples" / "systemd" / "labhub-broker.service"


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    (tmp_path / ".local" / "bin").mkdir(parents=True)
    command = tmp_path / ".local" / "bin" / "labhub"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    try:
        verify = ["systemd-analyze", "verify", "--user", str(UNIT)]
        done = subprocess.run(verify, env=environment, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")
    if "Failed to" in done.stderr and "manager" in done.stderr:
        pytest.skip(f"systemd-analyze cannot run here: {done.stderr.splitlines()[-1]}")
    assert [line for line in done.stderr.splitlines() if "labhub-broker" in line] == []
    assert done.returncode == 0


def test_a_broker_tells_its_manager_that_it_is_ready_and_that_it_stops(tmp_path: Path) -> None:
    """As the unit starts it; the address that systemd gives may be abstract."""
    (words,) = re.findall(r"^ExecStart=%h/\.local/bin/labhub (.*)$", UNIT.read_text(), flags=re.M)
    command = [sys.executable, "-m", "labhub.cli", *words.split(), "--listen", ANY_PORT]
    for address in (str(tmp_path / "notify"), "\0" + str(tmp_path)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(60)
            environment = os.environ | {"NOTIFY_SOCKET": address.replace("\0", "@")}
            with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
                assert manager.recv(100) == b"READY=1"
                with connect() as hub:
                    assert hub.channels() == []
                process.terminate()
                assert manager.recv(100) == b"STOPPING=1"
                process.communicate(timeout=60)
            assert process.returncode == 0


def test_a_segment_that_cannot_be_examined_does_not_empty_the_scrape(hub: Hub, port: int) -> None:
    with hub.producer("a", like=1.0) as good, hub.producer("bad", like=1.0), hub.producer("z", like=1.0):
        good.write(1.0)
        with junk_segment(hub, "bad"), odd_registration("odd"):
            found = scrape(port)
            assert of(found, "labhub_channels") == 4
            assert of(found, "labhub_channels_unreadable") == 1
            assert of(found, "labhub_slots_committed_total", channel="a") == 1
            assert of(found, "labhub_slots_committed_total", channel="z") == 0
            assert of(found, "labhub_slots_committed_total", channel="bad") is None
        assert of(scrape(port), "labhub_channels_unreadable") == 0
        assert of(scrape(port), "labhub_slots_committed_total", channel="bad") == 0


def test_a_number_that_prometheus_refuses_costs_its_own_channel_only(
    hub: Hub, port: int, monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    """Nothing real is known to do this."""

    def odd(entry: Any) -> Any:
        found = diagnosed(entry)
        return replace(found, commit_ns="soon") if entry.channel_name == "bad" else found  # type: ignore[arg-type]

    diagnosed = room._diagnosed
    monkeypatch.setattr(room, "_diagnosed", odd)
    with hub.producer("a", like=1.0), hub.producer("bad", like=1.0), hub.producer("z", like=1.0):
        found = scrape(port)
    assert of(found, "labhub_capacity_slots", channel="a") == of(found, "labhub_capacity_slots", channel="z")
    assert of(found, "labhub_capacity_slots", channel="bad") is None
    assert of(found, "labhub_channels_unreadable") == 1
    assert len(failures) == 1
    assert failures[0].startswith("item_failed: metrics, bad: TypeError")
