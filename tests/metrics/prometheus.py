"""A real Prometheus that scrapes one broker, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import wait_until
from tests.metrics.conftest import ROOT, free_port

INTERVAL = "1s100ms"
"""Between two scrapes; more than `labhub.hub.metrics.MIN_INTERVAL`, so that each one sees new numbers."""

Labels = dict[str, str]


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Whether it answers questions."""
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path: str, **parameters: object) -> Any:
        """Ask, and return the data of the answer; an expression that it does not take fails here."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._base}/api/v1/{path}?{query}", timeout=30) as answer:
            found = json.load(answer)
        assert (found["status"], found.get("warnings", [])) == ("success", []), found
        return found["data"]

    def at(self, moment: float, expression: str) -> list[tuple[Labels, float]]:
        """Labels and value of each series at a time."""
        found = self.get("query", query=expression, time=moment)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def until(self, moment: float, seconds: int, expression: str) -> list[tuple[Labels, list[float]]]:
        """Labels and values, a second apart, of each series in the time before another."""
        span = {"start": moment - seconds, "end": moment, "step": 1}
        found = self.get("query_range", query=expression, **span)["result"]
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in found]

    def wait_for(self, expression: str, seconds: float = 30.0) -> float:
        """Wait until an expression gives something; when it did."""
        moments: list[float] = []

        def is_there() -> bool:
            moments.append(time.time())
            return bool(self.at(moments[-1], expression))

        wait_until(is_there, seconds, expression)
        return moments[-1]


def documented(broker_port: int) -> str:
    """The configuration of docs/metrics.md, for a broker on another port and for who cannot wait."""
    (told,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "metrics.md").read_text(), flags=re.S)
    config = told.replace("9570", str(broker_port)).replace("15s", INTERVAL)
    assert str(broker_port) in config
    assert INTERVAL in config
    return config


@contextmanager
def prometheus(broker_port: int, directory: Path) -> Iterator[Prometheus]:
    """Run it as the documentation says, with all that it writes in a directory."""
    config, port = directory / "prometheus.yml", free_port()
    config.write_text(documented(broker_port))
    subprocess.run(["promtool", "check", "config", str(config)], check=True, capture_output=True, timeout=60)
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            api = Prometheus(port)
            wait_until(lambda: process.poll() is not None or api.ready(), 30, "Prometheus")
            assert process.poll() is None, (directory / "log").read_text()
            yield api
        finally:
            process.kill()  # what it has stored is of no use to anybody
