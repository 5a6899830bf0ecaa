"""The magics in an IPython shell, against a real broker process."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import labhub
import labhub.doctor
import labhub.hub
from labhub import BrokerConfig, BrokerService, runtime
from labhub.doctor import Finding
from labhub.errors import LabHubError
from labhub.hub import ChannelInfo, Hub, named_broker, stop_broker
from labhub.notebook.complete import MAGICS
from labhub.notebook.display import BrokerStatus, ChannelTable
from labhub.notebook.rates import RateMeter

Run = Callable[[str], Any]


def test_start_status_stop_each_twice(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    started = run("%hub_broker start")
    assert isinstance(started, BrokerStatus)
    found = runtime.find_live()
    assert found is not None
    assert (started.endpoint, started.public_key) == (found.endpoint, found.public_key)
    assert run("%hub_broker start").endpoint == started.endpoint
    text = repr(run("%hub_broker"))
    assert found.endpoint in text
    assert "channels    none" in text
    assert repr(run("%hub_broker stop")) == "broker 'default': stopped"
    assert run("%hub_broker stop") is None
    assert "no broker named 'default' is running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%hub_broker strat", "%hub_broker strat: choose one of start, stop, status, restart; did you mean start"),
        ("%hub_broker", "no broker named 'default' is running; start one with: %hub_broker start"),
        ("%hub_broker --name lab2", "start one with: %hub_broker start --name lab2"),
        ("%hub_broker stop", "no broker named 'default' is running"),
        ("%hub_broker start --endpoint tcp://nowhere.invalid:1", "did not start"),
        ("%hub_connect", "start one with: %hub_broker start"),
        ("%hub_info x", "no broker named 'default' is running"),
        ("%hub_plot x", "no broker named 'default' is running"),
        ("%hub_tail x", "no broker named 'default' is running"),
        ("%hub_tail x -n 0", "takes a number of slots, not 0"),
        ("%hub_tail", "the following arguments are required: channel"),
        ("%hub_broker start --name ../x", "cannot name a broker"),
        ("%hub_discover", "no broker named 'default' is running"),
        ("%hub_discover --wait -1", "takes seconds"),
        ("%hub_discover --wait x", "invalid float"),
        ("%hub_discover --colour blue", "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_clear_line(run: Run, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    assert run(line) is None
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("magic", ["hub_info", "hub_tail", "hub_plot"])
def test_an_unknown_channel_names_the_closest(run: Run, capsys: pytest.CaptureFixture[str], magic: str) -> None:
    with labhub.connect() as hub, hub.producer("pump.pressure", like=1.5):
        assert run(f"%{magic} pump.presure") is None
        assert "Did you mean 'pump.pressure'?" in capsys.readouterr().err


def test_restart_keeps_the_endpoint_unless_another_is_given(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = run("%hub_broker restart --endpoint tcp://127.0.0.1:0")  # none runs: as good as a start
    pid = runtime.find_live().pid
    again = run("%hub_broker restart")
    assert (again.endpoint, again.public_key) == (first.endpoint, first.public_key)
    assert runtime.find_live().pid != pid
    other = "tcp://127.0.0.1:" + str(int(first.endpoint.rpartition(":")[2]) ^ 1)
    assert run(f"%hub_broker start --endpoint {other}") is None
    assert f"runs already, at {first.endpoint}; %hub_broker restart --endpoint {other}" in capsys.readouterr().err
    assert run("%hub_broker start --here") is None
    assert "restart --here moves it" in capsys.readouterr().err
    run("%hub_broker stop")


def of_pyzmq(thread: threading.Thread) -> bool:
    """Whether this is the one thread by which pyzmq keeps messages until they have left; it stays for the process."""
    return type(thread).__module__ == "zmq.utils.garbage"


def test_a_broker_in_this_kernel_ends_with_the_magics(shell: InteractiveShell, run: Run) -> None:
    threads = set(threading.enumerate())
    started = run("%hub_broker start --here --endpoint tcp://127.0.0.1:0")
    assert runtime.find_live().pid == os.getpid()
    assert started.uptime < 60  # its own, not this process's
    assert run("%hub_broker start --here").endpoint == started.endpoint
    with labhub.connect() as hub, hub.producer("x", like=1.5):
        # Live channels do not keep it.
        assert repr(run("%hub_broker stop")) == "broker 'default': stopped"
    assert runtime.find() is None
    run("%hub_broker restart --here --endpoint tcp://127.0.0.1:0")
    shell.run_line_magic("unload_ext", "labhub")
    assert runtime.find() is None
    assert [t for t in threading.enumerate() if t not in threads and not of_pyzmq(t)] == []
    shell.run_line_magic("load_ext", "labhub")


def test_a_broker_that_somebody_else_runs_in_this_process_is_not_killed(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with named_broker(endpoint="tcp://127.0.0.1:0") as service:
        service.start()
        assert run("%hub_broker stop") is None
        assert "runs inside" in capsys.readouterr().err
        with pytest.raises(LabHubError, match="runs inside"):
            stop_broker()
        assert run("%hub_broker").running


@pytest.mark.parametrize(
    "written", ["'{key}'", '"{key}"', "{key}", "$key"], ids=["single", "double", "bare", "variable"]
)
def test_connect_to_a_broker_by_its_endpoint_and_key(shell: InteractiveShell, run: Run, written: str) -> None:
    with BrokerService(BrokerConfig(endpoint="tcp://127.0.0.1:0")) as broker:
        shell.user_ns["key"] = broker.public_key
        key = written.replace("{key}", broker.public_key)
        hub = run(f"%hub_connect far --endpoint {broker.endpoint} --public-key {key}")
        try:
            assert hub.given == (broker.endpoint, broker.public_key)
            assert hub.channels() == []
        finally:
            hub.close()


def test_connect_gives_the_name_hub_unless_it_is_taken(
    shell: InteractiveShell, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = run("%hub_connect --start")
    try:
        assert shell.user_ns["hub"] is hub
        assert isinstance(hub, Hub)
        assert run("%hub_connect") is hub
        run("hub = 5")
        capsys.readouterr()
        run("h = %hub_connect")
        assert "the name hub is taken by a int" in capsys.readouterr().out
        assert shell.user_ns["hub"] == 5
        assert shell.user_ns["h"] is hub
    finally:
        stop_broker()


@pytest.mark.usefixtures("broker")
def test_info_shows_the_schema_the_ring_and_the_readers(run: Run) -> None:
    with labhub.connect() as hub:
        options = {"shape": 10, "dims": "time", "sample_rate": 100, "units": "adc", "capacity": 64}
        with hub.producer("ppg", dtype="i2", **options) as p, hub.consumer("ppg", mode="lossless"):
            p.write_many([range(10)] * 5)
            report = run("%hub_info ppg")
    for words in ("int16[10]", "value in adc", "100 per second", "64 slots of 20 B", "5 slots", "lossless  0       5"):
        assert words in repr(report)
        assert words.split("  ")[0] in report._repr_html_()
    assert report.diagnosis.head == 5
    assert report.info.name == "ppg"


@pytest.mark.usefixtures("broker")
def test_tail_shows_the_newest_slots(run: Run) -> None:
    with labhub.connect() as hub, hub.producer("pump", like={"bar": 1.5, "pa": [1, 2, 3]}, units={"bar": "bar"}) as p:
        assert repr(run("%hub_tail pump")) == "pump: nothing written yet"
        for k in range(5):
            p.write({"bar": k / 4, "pa": [k, k, k]})
        head, *rows = repr(run("%hub_tail pump -n 2")).splitlines()
        assert head.split("  ")[0] == "seq"
        assert "bar / bar" in head
        assert [re.sub(r"\d{4}-\S+", "TIME", row).split() for row in rows] == [
            ["3", "TIME", "0.75", "[3,", "3,", "3]"],
            ["4", "TIME", "1", "[4,", "4,", "4]"],
        ]


@pytest.mark.usefixtures("broker")
def test_rates_are_measured_between_two_looks(run: Run) -> None:
    with labhub.connect() as hub, hub.producer("x", like=1.5) as p:
        p.write(1.0)
        first = run("%hub_discover").rates["x"]
        assert first.since == "start"
        assert 0 < first.per_second < 1000
        looks = iter([100.0, 100.1, 102.0])
        meter = RateMeter("default", clock=lambda: next(looks))
        assert meter.measure("x").since == "start"
        assert meter.measure("x").since == "start"  # too soon after the first look
        p.write_many([1.0] * 50)
        assert str(meter.measure("x")) == "25 since last look"
    assert meter.measure("x") is None


@pytest.mark.usefixtures("broker")
def test_discover_lists_assigns_and_filters(shell: InteractiveShell, run: Run) -> None:
    assert repr(run("%hub_discover")) == "no channels"
    with labhub.connect() as hub, hub.producer("pump.pressure", like=1.5, units="bar"):
        run("found = %hub_discover pump.* --wait 5")
        found = shell.user_ns["found"]
        assert isinstance(found, ChannelTable)
        assert [type(c) for c in found] == [ChannelInfo]
        head, row = repr(found).splitlines()
        assert head.split() == ["channel", "slot", "units", "slots/s", "producer", "consumers", "age", "liveness"]
        assert row.split()[:3] == ["pump.pressure", "float64", "bar"]
        assert "<td" in found._repr_html_()
        assert len(run("%hub_discover valve.*")) == 0
        run("pattern = 'pump.*'")
        assert len(run("%hub_discover {pattern}")) == 1
        assert run("%hub_broker").channels == ("pump.pressure",)


@pytest.mark.usefixtures("broker")
def test_unloading_leaves_nothing_but_the_users_own(shell: InteractiveShell, run: Run) -> None:
    run("%hub_discover")
    shell.run_line_magic("unload_ext", "labhub")
    assert shell.find_line_magic("hub_discover") is None
    assert not [t for t in threading.enumerate() if t.name == "labhub-messenger"]
    shell.run_line_magic("load_ext", "labhub")
    with labhub.connect() as hub, hub.producer("x", like=1.5) as p:
        run("%hub_discover")
        shell.run_line_magic("unload_ext", "labhub")
        p.write(2.5)
        assert len(hub.channels()) == 1
    shell.run_line_magic("load_ext", "labhub")


@pytest.mark.usefixtures("broker")
def test_no_secret_is_shown(run: Run) -> None:
    from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, load_key

    status = run("%hub_broker")
    for name in (CLIENT_KEY, SERVER_KEY):
        key = load_key(name)
        assert key.secret not in repr(status) + status._repr_html_() + repr(key)


def test_unloading_stops_the_widgets(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[bool] = []
    monkeypatch.setitem(sys.modules, "labhub.notebook.live", SimpleNamespace(stop_all=lambda: stopped.append(True)))
    shell.run_line_magic("unload_ext", "labhub")
    assert stopped == [True]
    shell.run_line_magic("load_ext", "labhub")


@pytest.mark.usefixtures("broker")
def test_the_doctor_shows_what_is_not_in_order(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("%hub_doctor")
    assert {f.check for f in found} >= {"segments"}
    assert f"of {len(found)} findings: in order" in repr(found)
    bad = Finding("keys", "problem", "/a/key", "others can <read> it", "chmod 600 /a/key")
    monkeypatch.setattr(labhub.doctor, "examine", lambda: [Finding("keys", "ok", "/b/key", "private"), bad])
    found = run("%hub_doctor")
    assert "others can <read> it" in repr(found)
    assert "/b/key" not in repr(found)
    assert "others can &lt;read&gt; it" in found._repr_html_()
    assert "1 of 2 findings: in order" in found._repr_html_()


@pytest.mark.usefixtures("broker")
def test_a_plot_is_the_channels_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def plot(channel: labhub.hub.Channel, *fields: str, **options: object) -> tuple[object, ...]:
        return channel.name, fields, options

    monkeypatch.setattr(labhub.hub.Channel, "plot", plot, raising=False)
    with labhub.connect() as hub, hub.producer("pump", like={"bar": 1.0, "pascal": 2.0}):
        assert run("%hub_plot pump --fields bar pascal --window 5") == ("pump", ("bar", "pascal"), {"window": 5.0})


@pytest.mark.parametrize("name", MAGICS)
def test_every_magic_reads_well(shell: InteractiveShell, name: str) -> None:
    magic = shell.find_line_magic(name) or shell.find_cell_magic(name)
    text = magic.__doc__
    assert "Examples" in text
    assert f"%{name}" in text.partition("Examples")[2]
    # What completion offers is what the parser takes.
    options = {o for action in magic.parser._actions for o in action.option_strings} - {"-h", "--help"}
    assert options == set(MAGICS[name].options)
