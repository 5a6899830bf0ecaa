"""A broker that does not answer: what was asked is said in words, and what to do."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

import labhub
from labhub import runtime
from labhub.errors import BrokerUnreachable, LabHubError
from labhub.hub import Hub, start_broker, stop_broker
from labhub.protocol import messages


@pytest.fixture
def silent() -> Iterator[Hub]:
    """A hub whose broker is stopped, as by Ctrl-Z."""
    running = start_broker(endpoint="tcp://127.0.0.1:0")
    hub = labhub.connect(timeout=0.3)
    os.kill(running.pid, signal.SIGSTOP)
    yield hub
    os.kill(running.pid, signal.SIGCONT)
    hub.close()
    if runtime.find_live():
        stop_broker()


def test_no_internal_name_reaches_a_user(silent: Hub) -> None:
    internal = {kind.__name__ for kind in messages.TYPE_NAME} | set(messages.TYPE_NAME.values()) | {"Messenger"}
    calls = (
        silent.channels, lambda: silent.find("x"), lambda: silent.schema("x"), lambda: silent.consumer("x"),
        silent.watch, lambda: silent.producer("x", like=0.0), lambda: silent.wait_for("x", timeout=0.2),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(LabHubError) as caught:
            call()
        assert not internal & set(re.findall(r"\w+", str(caught.value)))
    with pytest.raises(BrokerUnreachable) as caught:
        silent.channels()
    assert str(caught.value) == (
        "the broker did not answer within 0.3 s when asked for its channels; data flows on without it. "
        "`labhub doctor` finds out whether it still runs"
    )
    assert caught.value.told("notebook").endswith("%hub_doctor finds out whether it still runs")
