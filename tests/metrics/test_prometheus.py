"""A real Prometheus takes what a broker says, and answers what the dashboard asks with what has happened."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labhub import Messenger
from labhub.errors import AuthenticationError, BackpressureTimeout, ChannelNotFound
from labhub.hub import Hub, connect, start_broker, stop_broker
from labhub.hub.producers import Producer
from labhub.protocol.messages import ErrorCode
from labhub.runtime import ConnectionFile
from labhub.transport.curve import KeyPair
from tests.faults.broker_processes import Actor, produce
from tests.metrics.conftest import ANY_PORT
from tests.metrics.prometheus import Labels, Prometheus, prometheus

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="there is no Prometheus: apt-get install prometheus",
)

WINDOW = 5
"""Of a rate (in seconds), so that several scrapes are in it."""
SHOWN = 20
"""What the dashboard shows (in seconds)."""
CHANNELS = ("busy", "dies", "evicts", "full", "heir", "loses", "slow")
"""With series of their own; "unseen" is one more."""


@dataclass(frozen=True)
class Value:
    """A number that is one of these."""

    least: float
    most: float = float("inf")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and self.least <= other <= self.most


ONCE = Value(0.9, 1.6)
"""An increase by one, as Prometheus extrapolates it from what it saw to the window that it was asked for."""
SOME = Value(1e-9)


class Writer:
    """Writes a channel all the time, and remembers when."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._times: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        while not self._stop.wait(0.005):
            self._producer.write(1.0)
            self._times.append(time.time())

    def rate(self, until: float) -> float:
        """Slots per second in the window before a time."""
        return (bisect_left(self._times, until) - bisect_left(self._times, until - WINDOW)) / WINDOW

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


class Scene:
    """A broker in a process of its own, and channels each of which something is about to happen to."""

    def __init__(self, stack: ExitStack, broker: ConnectionFile, hub: Hub) -> None:
        self.broker, self.hub = broker, hub
        self.doomed = stack.enter_context(Actor(produce, ["dies", "heir"], 0.01))
        assert self.doomed.hear() == "ready"
        self.doomed.say("go")
        options: Mapping[str, Mapping[str, Any]] = {
            "busy": {"capacity": 1024},
            "evicts": {"capacity": 4, "evict_after": 0.05},
            "full": {"capacity": 4, "evict_after": None, "timeout": 0.2},
            "loses": {"capacity": 4},
            "slow": {"capacity": 8},
            "unseen": {"capacity": 8},
        }
        self.producers = {name: stack.enter_context(hub.producer(name, like=1.0, **of)) for name, of in options.items()}
        modes = {"evicts": "lossless", "full": "lossless", "slow": "lossless", "loses": "stream"}
        self.readers = {name: stack.enter_context(hub.consumer(name, mode=mode)) for name, mode in modes.items()}
        stack.enter_context(hub.watch())
        self.writer = stack.enter_context(Writer(self.producers["busy"]))

    def happen(self, settings: Path) -> None:
        """Let all of it happen."""
        self.producers["slow"].write_many([1.0] * 4)
        self.producers["evicts"].write_many([1.0] * 5)
        with pytest.raises(BackpressureTimeout):
            self.producers["full"].write_many([1.0] * 5)
        self.producers["loses"].write_many([1.0] * 10)
        assert next(self.readers["loses"].batches(timeout=5)).lost == 6
        with Messenger(KeyPair.random()) as stranger, pytest.raises(AuthenticationError):
            stranger.connect(self.broker.endpoint, self.broker.public_key)
        with pytest.raises(ChannelNotFound):
            self.hub.schema("nowhere")
        with Messenger() as messenger:
            assert messenger.connect(self.broker.endpoint, self.broker.public_key)
            messenger.report_checksum_error("slow", 0).result(5)
        settings.write_text("x = 1")
        self.doomed.kill()


@pytest.fixture
def api(port: int, tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus(port, tmp_path) as api:
        yield api


@pytest.fixture
def scene(private_dirs: Path, port: int) -> Iterator[Scene]:
    settings = private_dirs / "config" / "broker-default.toml"
    settings.write_text(f"[metrics]\nport = {port}\nmax_channels = {len(CHANNELS)}\n")
    broker = start_broker(endpoint=ANY_PORT)
    try:
        with ExitStack() as stack:
            hub = stack.enter_context(connect())
            yield Scene(stack, broker, hub)
    finally:
        stop_broker()


PANELS: dict[str, list[dict[str, object]]] = {
    "State": [{"": 1.0}],
    "Up for": [{"": SOME}],
    "Channels": [{"": 8.0}],
    "Dead channels": [{"": 1.0}],
    "Consumers": [{"": 4.0}],
    "Rejected handshakes": [{"": Value(0.9)}],
    "Settings": [{"": 1.0}],
    "Without series": [{"": 1.0}],
    "Channels now": [
        {name: float(name != "dies") for name in CHANNELS},
        dict.fromkeys(CHANNELS, Value(0)),
        dict.fromkeys(CHANNELS, Value(0)),
        {name: Value(0, 20) for name in CHANNELS if name != "heir"},
        {"full": 1.0, "loses": 1.0, "slow": 1.0},
        {"full": 1.0, "loses": 0.0, "slow": 0.5},
        {"full": 0.0, "loses": 6.0, "slow": 0.0},
        dict.fromkeys(CHANNELS, Value(0, 0.5)),
        {name: ONCE if name == "evicts" else 0.0 for name in CHANNELS},
    ],
    "Slots": [{name: SOME if name != "heir" else 0.0 for name in CHANNELS}],
    "Bytes": [{name: SOME if name != "heir" else 0.0 for name in CHANNELS}],
    "Age of the newest slot": [{name: Value(0, 20) for name in CHANNELS if name != "heir"}],
    "Lag": [{"evicts lossless": 0.0, "full lossless": 1.0, "loses lossy": 0.0, "slow lossless": 0.5}],
    "Lost": [{"evicts lossless": 0.0, "full lossless": 0.0, "loses lossy": 6.0, "slow lossless": 0.0}],
    "Back-pressure": [{name: SOME if name in ("evicts", "full") else 0.0 for name in CHANNELS}],
    "Blocked writes": [{name: SOME if name in ("evicts", "full") else 0.0 for name in CHANNELS}],
    "Evictions, timeouts, takeovers": [{"evicts evictions": ONCE}, {"full timeouts": ONCE}, {"heir takeovers": ONCE}],
    "Refused": [
        {"handshakes": Value(0.9)},
        {code.value: ONCE if code is ErrorCode.CHANNEL_NOT_FOUND else 0.0 for code in ErrorCode},
        {"not even answered": 0.0},
    ],
    "Registrations, events, corrupt slots": [{"registrations": ONCE}, {"events": SOME}, {"corrupt slots": ONCE}],
    "Processor": [{"processor": Value(0, 2)}],
    "Memory": [{"memory": Value(1e7, 1e9)}],
}
"""What each expression gives: a value for each legend, or channel in the table. Of a graph, its highest point."""


def asked(target: Mapping[str, str], port: int) -> str:
    """The expression of a panel as Grafana sends it, with all channels chosen."""
    values = {
        "$__rate_interval": f"{WINDOW}s",
        "$__range": f"{SHOWN}s",
        "$instance": f"127.0.0.1:{port}",
        "$channel": ".+",
    }
    expression = target["expr"]
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def legend(target: Mapping[str, str], labels: Labels) -> str:
    """The name of a series, as Grafana shows it."""
    if target["legendFormat"] == "__auto":
        return labels.get("channel", "")
    return re.sub(r"{{(\w+)}}", lambda found: labels[found[1]], target["legendFormat"])


def shown(api: Prometheus, moment: float, target: Mapping[str, str], port: int) -> dict[str, float]:
    """The number of each legend of a panel."""
    expression = asked(target, port)
    if target.get("instant"):
        found = api.at(moment, expression)
    else:
        found = [(labels, max(values)) for labels, values in api.until(moment, SHOWN, expression)]
    numbers = {legend(target, labels): value for labels, value in found}
    assert len(numbers) == len(found), "two series have the same legend"
    return numbers


def everything(api: Prometheus, moment: float, port: int, board: Any) -> dict[str, list[dict[str, float]]]:
    """What all panels show at a time."""
    return {
        panel["title"]: [shown(api, moment, target, port) for target in panel["targets"]]
        for panel in board["panels"]
        if "targets" in panel
    }


def choices(api: Prometheus, port: int, board: Any) -> dict[str, list[str]]:
    """What can be chosen for each variable."""
    found = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = variable["query"]["query"].replace("$instance", f"127.0.0.1:{port}")
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()
            found[variable["name"]] = api.get(f"label/{label}/values", **{"match[]": metric})
    return found


def test_the_dashboard_shows_what_has_happened(
    api: Prometheus, scene: Scene, port: int, private_dirs: Path, board: Any
) -> None:
    # Twice, because a counter that was not seen before cannot be seen to rise.
    api.wait_for(f"count(count_over_time(labhub_slots_committed_total[{WINDOW}s]) >= 2) == {len(CHANNELS)}")
    scene.happen(private_dirs / "config" / "broker-default.toml")
    api.wait_for("labhub_channels_dead == 2")
    with scene.hub.producer("heir", dtype="u8", shape=16, capacity=4096, evict_after=None):
        moment = api.wait_for(
            "labhub_settings_refused == 1 and labhub_channels_dead == 1"
            ' and on() labhub_takeovers_total{channel="heir"} == 1'
            f' and on() count_over_time(labhub_slots_committed_total{{channel="busy"}}[{WINDOW}s]) >= 4'
        )
        written = scene.writer.rate(moment)
        found = everything(api, moment, port, board)
    assert found.keys() == PANELS.keys()
    for title, expected in PANELS.items():
        assert found[title] == expected, title
    _, slots, nbytes, *_ = found["Channels now"]
    assert slots["busy"] == pytest.approx(written, rel=0.3)
    assert nbytes["busy"] == pytest.approx(8 * slots["busy"])
    assert choices(api, port, board) == {"instance": [f"127.0.0.1:{port}"], "channel": list(CHANNELS)}

    (state,) = [panel["targets"][0] for panel in board["panels"] if panel["title"] == "State"]
    os.kill(scene.broker.pid, signal.SIGSTOP)
    try:
        api.wait_for(f"({asked(state, port)}) == -1")
    finally:
        os.kill(scene.broker.pid, signal.SIGCONT)
