"""What a broker and its channels do, for Prometheus. The only place that imports prometheus_client."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from labhub import __version__
from labhub.broker import BrokerView
from labhub.datablock.diagnostics import Diagnosis, diagnose
from labhub.errors import BrokerUnreachable, LabHubError, MissingDependency
from labhub.hub.channels import directory_of
from labhub.logs import event

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingDependency(
        "metrics need prometheus_client; run: pip install 'labhub[metrics]'", package="prometheus_client"
    ) from None

if TYPE_CHECKING:
    from labhub.broker import Registration

logger = logging.getLogger(__name__)

MIN_INTERVAL = 1.0
"""Whoever asks again sooner than this (in seconds) gets the same numbers: a look costs time, and anybody can ask."""

Numbers = dict[str, float]

BROKER = (
    ("labhub_broker_uptime_seconds", "For how long the broker has been listening.", "uptime_s"),
    ("labhub_channels", "Registered channels.", "channels"),
    ("labhub_watches", "Watches for events.", "watches"),
    ("labhub_registrations_total", "Registrations that were not only refreshed.", "registrations"),
    ("labhub_events_total", "Events sent to watchers.", "events"),
    ("labhub_checksum_errors_total", "Slots that were told to be corrupt.", "checksum_errors"),
    ("labhub_messages_ignored_total", "Messages that could not even be answered.", "ignored"),
    ("labhub_handshakes_rejected_total", "Connections with a key that is not let in.", "handshakes_rejected"),
    ("labhub_settings_reads_total", "How often the settings file was read again.", "settings_reads"),
    ("labhub_settings_refused", "1 while the settings file is broken, and older settings hold.", "settings_refused"),
)
"""Name, help, and which of `BrokerView.numbers` it is. A name that ends in ``_total`` is a counter's."""

CHANNEL: tuple[tuple[str, str, Callable[[Diagnosis], float]], ...] = (
    ("labhub_producer_alive", "Whether a living process holds the producer's lock.", lambda d: d.alive),
    ("labhub_capacity_slots", "Slots of the ring.", lambda d: d.capacity),
    (
        "labhub_last_commit_timestamp_seconds",
        "Time of the newest slot; 0 for none.",
        lambda d: d.commit_ns / 1e9,
    ),
    ("labhub_slots_committed_total", "Slots committed to this segment.", lambda d: d.head - d.first_seq),
    ("labhub_written_bytes_total", "Bytes committed.", lambda d: d.counters["bytes_written"]),
    ("labhub_evictions_total", "Lossless readers evicted.", lambda d: d.counters["evictions"]),
    ("labhub_takeovers_total", "Producers that took the segment over.", lambda d: d.counters["takeovers"]),
    ("labhub_writes_blocked_total", "Writes that waited for lossless readers.", lambda d: d.counters["blocked"]),
    ("labhub_write_blocked_seconds_total", "For how long they waited.", lambda d: d.counters["blocked_ns"] / 1e9),
    ("labhub_write_timeouts_total", "Writes that waited in vain.", lambda d: d.counters["timeouts"]),
)
"""Name, help and value of what each channel has, whose segment is on this machine; label ``channel``."""

READERS: tuple[tuple[str, str, Callable[[list[tuple[int, int]]], float]], ...] = (
    ("labhub_readers", "Readers that are attached.", len),
    (
        "labhub_reader_lag_slots",
        "Slots that the slowest has still to read.",
        lambda r: max(lag for lag, _ in r),
    ),
    ("labhub_reader_lost_slots", "Slots that those attached now have lost.", lambda r: sum(lost for _, lost in r)),
)
"""Name, help and value, of the (lag, lost) of the readers of one kind; labels ``channel`` and ``kind``."""


@contextmanager
def serve(look: Callable[[], BrokerView], address: str, port: int, max_channels: int) -> Iterator[int]:
    """Serve the metrics of a broker in this process over HTTP, in threads of their own; the port that it is.

    Parameters
    ----------
    look : callable
        `BrokerService.look`.
    address, port : str, int
        Where to listen; port 0 is any.
    max_channels : int
        So many channels have series of their own, the first ones in the order of their names.

    Raises
    ------
    BrokerUnreachable
        It cannot listen there.
    """
    registry = CollectorRegistry()
    registry.register(BrokerCollector(look, max_channels))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        where = f"http://{address}:{port}"
        raise BrokerUnreachable(f"metrics cannot be served on {where}: {error.strerror}", endpoint=where) from None
    endpoint = f"http://{address}:{server.server_port}/metrics"
    logger.info("metrics are at %s", endpoint, extra=event("metrics_listening", endpoint=endpoint))
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class BrokerCollector(Collector):
    """Asks the broker in its own thread for what it knows, and looks at the segments in that of whoever asks."""

    def __init__(self, look: Callable[[], BrokerView], max_channels: int) -> None:
        self._look = look
        self._max_channels = max_channels
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._found: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        """Return all metrics, as of now or of a moment ago."""
        with self._lock:
            if time.monotonic() - self._looked_at >= MIN_INTERVAL:
                self._found = list(self._collected())
                self._looked_at = time.monotonic()
            return self._found

    def _collected(self) -> Iterator[Metric]:
        yield InfoMetricFamily("labhub_build", "Which labhub this is.", {"version": __version__})
        try:
            view = self._look()
        except LabHubError:  # it does not serve yet, or no more
            yield GaugeMetricFamily("labhub_broker_answers", "Whether the broker answers.", 0)
            return
        yield GaugeMetricFamily("labhub_broker_answers", "Whether the broker answers.", 1)
        yield from _of_broker(view)
        with_series = sorted(view.channels, key=lambda entry: entry.channel_name)[: self._max_channels]
        left_out = len(view.channels) - len(with_series)
        yield GaugeMetricFamily("labhub_channels_left_out", "Channels too many to have series of their own.", left_out)
        yield from _of_channels(with_series)


def _of_broker(view: BrokerView) -> Iterator[Metric]:
    for name, text, key in BROKER:
        family = _family(name, text)
        family.add_metric([], view.numbers.get(key, 0.0))
        yield family
    dead = sum(entry.dead_since is not None for entry in view.channels)
    yield GaugeMetricFamily("labhub_channels_dead", "Channels whose producer is dead.", dead)
    consumers = sum(len(entry.consumers) for entry in view.channels)
    yield GaugeMetricFamily("labhub_consumers", "Consumers that are registered.", consumers)
    refused = CounterMetricFamily("labhub_requests_refused", "Requests answered with an error.", labels=["code"])
    for key, value in view.numbers.items():
        if key.startswith("refused."):
            refused.add_metric([key.removeprefix("refused.")], value)
    yield refused


def _of_channels(entries: list[Registration]) -> Iterator[Metric]:
    channels = [_family(name, text, "channel") for name, text, _ in CHANNEL]
    readers = [_family(name, text, "channel", "kind") for name, text, _ in READERS]
    for entry in entries:
        found = _diagnosed(entry)
        if found is None:
            continue
        for family, (_, _, value) in zip(channels, CHANNEL, strict=True):
            family.add_metric([entry.channel_name], float(value(found)))
        for kind in ("lossless", "lossy"):
            attached = [(r.lag, r.lost) for r in found.readers if r.kind == kind and r.alive]
            for family, (_, _, amount) in zip(readers, READERS, strict=True):
                if attached:
                    family.add_metric([entry.channel_name, kind], amount(attached))
    yield from channels
    yield from readers


def _diagnosed(entry: Registration) -> Diagnosis | None:
    directory = directory_of(entry.metadata)
    if directory is None:
        return None  # another machine's
    try:
        return diagnose(entry.shm_name, directory, slots=False)
    except LabHubError:  # closed a moment ago, or never there
        return None


def _family(name: str, text: str, *labels: str) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, text, labels=labels)
