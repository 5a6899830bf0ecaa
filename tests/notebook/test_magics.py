"""The magics in an IPython shell, against a real broker process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

import labhub
from labhub import runtime
from labhub.hub import ChannelInfo, start_broker, stop_broker
from labhub.notebook.display import BrokerStatus, ChannelTable, age


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    shell.run_line_magic("load_ext", "labhub")
    yield shell
    shell.run_line_magic("unload_ext", "labhub")


@pytest.fixture
def broker() -> Iterator[None]:
    start_broker(endpoint="tcp://127.0.0.1:0")
    yield
    stop_broker()


def run(shell: InteractiveShell, code: str) -> Any:
    """Run a cell as a user would; its result, None if all it gave was a usage error."""
    outcome = shell.run_cell(code)
    if outcome.error_in_exec is not None and not isinstance(outcome.error_in_exec, UsageError):
        raise outcome.error_in_exec
    return outcome.result


def test_start_status_stop_each_twice(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    started = run(shell, "%hub_broker start")
    assert isinstance(started, BrokerStatus)
    found = runtime.find_live()
    assert found is not None
    assert (started.endpoint, started.public_key) == (found.endpoint, found.public_key)
    assert run(shell, "%hub_broker start").endpoint == started.endpoint
    text = repr(run(shell, "%hub_broker"))
    assert found.endpoint in text
    assert "channels    none" in text
    assert repr(run(shell, "%hub_broker stop")) == "broker 'default': stopped"
    assert run(shell, "%hub_broker stop") is None
    assert "no broker named 'default' is running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%hub_broker strat", "%hub_broker strat: choose one of start, stop, status"),
        ("%hub_broker", "no broker named 'default' is running; start one with"),
        ("%hub_broker start --name ../x", "cannot name a broker"),
        ("%hub_discover", "no broker named 'default' is running"),
        ("%hub_discover --wait -1", "takes seconds"),
        ("%hub_discover --wait x", "invalid float"),
        ("%hub_discover --colour blue", "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_clear_line(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert run(shell, line) is None
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err + captured.out


@pytest.mark.usefixtures("broker")
def test_discover_lists_assigns_and_filters(shell: InteractiveShell) -> None:
    assert repr(run(shell, "%hub_discover")) == "no channels"
    with labhub.connect() as hub, hub.producer("pump.pressure", like=1.5, units="bar"):
        run(shell, "found = %hub_discover pump.* --wait 5")
        found = shell.user_ns["found"]
        assert isinstance(found, ChannelTable)
        assert [type(c) for c in found] == [ChannelInfo]
        head, row = repr(found).splitlines()
        assert head.split() == ["channel", "slot", "units", "slots/s", "producer", "consumers", "age", "liveness"]
        assert row.split()[:3] == ["pump.pressure", "float64", "bar"]
        assert "<td" in found._repr_html_()
        assert len(run(shell, "%hub_discover valve.*")) == 0
        run(shell, "pattern = 'pump.*'")
        assert len(run(shell, "%hub_discover {pattern}")) == 1
        assert run(shell, "%hub_broker").channels == ("pump.pressure",)


@pytest.mark.usefixtures("broker")
def test_unloading_leaves_nothing_but_the_users_own(shell: InteractiveShell) -> None:
    run(shell, "%hub_discover")
    shell.run_line_magic("unload_ext", "labhub")
    assert shell.find_line_magic("hub_discover") is None
    assert not [t for t in threading.enumerate() if t.name == "labhub-messenger"]
    shell.run_line_magic("load_ext", "labhub")
    with labhub.connect() as hub, hub.producer("x", like=1.5) as p:
        run(shell, "%hub_discover")
        shell.run_line_magic("unload_ext", "labhub")
        p.write(2.5)
        assert len(hub.channels()) == 1
    shell.run_line_magic("load_ext", "labhub")


@pytest.mark.usefixtures("broker")
def test_no_secret_is_shown(shell: InteractiveShell) -> None:
    from labhub.transport.curve import CLIENT_KEY, SERVER_KEY, load_key

    status = run(shell, "%hub_broker")
    for name in (CLIENT_KEY, SERVER_KEY):
        key = load_key(name)
        assert key.secret not in repr(status) + status._repr_html_() + repr(key)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (864_000, "10 d")]
)
def test_ages(seconds: float, words: str) -> None:
    assert age(seconds) == words
