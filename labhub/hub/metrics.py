"""What a broker and its channels do, for Prometheus. The only place that imports prometheus_client."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from labhub import __version__
from labhub.broker import BrokerView
from labhub.datablock.diagnostics import Diagnosis, diagnose
from labhub.errors import BrokerUnreachable, ChannelNotFound, LabHubError, MissingDependency
from labhub.exhausted import raise_if_exhausted
from labhub.hub.channels import directory_of
from labhub.hub.scraping import Scraped, served
from labhub.logs import event
from labhub.protocol.messages import ErrorCode
from labhub.tasks import report

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
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

SWITCH_INTERVAL = 0.0002
"""In seconds; see `_broker_first`."""

AT_ONCE = 10
PAUSE = 0.0001
"""After so many segments it lets go of the interpreter for so long (in seconds). Each look makes several system calls
without the interpreter, and has it back before a thread that waits for it is awake. That one would wait on and on: its
wait for `SWITCH_INTERVAL` begins anew each time.
"""

Rows = list[tuple[tuple[str, ...], tuple[float, ...]]]
"""The labels' values, and a number for each metric that has these labels."""

BROKER = (
    ("labhub_broker_uptime_seconds", "For how long the broker has been listening.", "uptime_s"),
    ("labhub_channels", "Registered channels.", "channels"),
    ("labhub_watches", "Watches for events.", "watches"),
    ("labhub_registrations_total", "Registrations that were not only refreshed.", "registrations"),
    ("labhub_events_total", "Events sent to watchers.", "events"),
    ("labhub_checksum_errors_total", "Slots that were told to be corrupt.", "checksum_errors"),
    ("labhub_messages_ignored_total", "Messages that could not even be answered.", "ignored"),
    ("labhub_handshakes_rejected_total", "Connections with a key that is not let in.", "handshakes_rejected"),
    (
        "labhub_answers_dropped_total",
        "Long messages dropped, as their connection left others unread.",
        "answers_dropped",
    ),
    ("labhub_unread_bytes", "Long messages that wait for connections to read them.", "unread_nbytes"),
    ("labhub_broker_out_of_files", "1 while the broker has too few open files left for a newcomer.", "out_of_files"),
    ("labhub_settings_reads_total", "How often the settings file was read again.", "settings_reads"),
    ("labhub_settings_refused", "1 while the settings file is broken, and older settings hold.", "settings_refused"),
)
"""Name, help, and which of `BrokerView.numbers` it is. A name that ends in ``_total`` is a counter's."""

ANSWERS = ("labhub_broker_answers", "Whether the broker answers.")
LEFT_OUT = ("labhub_channels_left_out", "Channels too many to have series of their own.")
UNREADABLE = ("labhub_channels_unreadable", "Channels whose segment is on this machine, and cannot be examined.")
DEAD = ("labhub_channels_dead", "Channels whose producer is dead.")
CONSUMERS = ("labhub_consumers", "Consumers that are registered.")
REFUSED = ("labhub_requests_refused_total", "Requests answered with an error; label ``code``.")

SERVER = (
    ("labhub_scrape_connections", "Open connections to this endpoint."),
    ("labhub_scrapes_cut_total", "Connections cut off to make room for others."),
    ("labhub_scrapes_turned_away_total", "Connections for which there was no room, or no open file."),
)

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
    ("labhub_clock_steps_total", "Steps of the wall clock that times follow.", lambda d: d.counters["clock_steps"]),
    (
        "labhub_clock_ahead_seconds",
        "By how much the clock of the slots is ahead of the wall clock.",
        lambda d: d.clock_ahead_ns / 1e9,
    ),
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
    collector = BrokerCollector(look, max_channels)
    registry.register(collector)
    ProcessCollector(registry=registry)
    where = f"http://{address}:{port}"
    with ExitStack() as stack:
        try:
            server = stack.enter_context(served(make_wsgi_app(registry), address, port))
        except OSError as error:
            raise_if_exhausted(error, f"metrics cannot be served on {where}")
            raise BrokerUnreachable(f"metrics cannot be served on {where}: {error.strerror}", endpoint=where) from None
        collector.server = server
        endpoint = f"http://{address}:{server.server_port}/metrics"
        logger.info("metrics are at %s", endpoint, extra=event("metrics_listening", endpoint=endpoint))
        yield server.server_port


class BrokerCollector(Collector):
    """Asks the broker in its own thread for what it knows, and looks at the segments in that of whoever asks."""

    def __init__(self, look: Callable[[], BrokerView], max_channels: int) -> None:
        self._look = look
        self._max_channels = max_channels
        self.server: Scraped | None = None
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._of_broker: list[Metric] = []
        self._of_channels: Rows = []
        self._of_readers: Rows = []

    def collect(self) -> Iterator[Metric]:
        """Return all metrics, as of now or of a moment ago."""
        with self._lock, _broker_first():
            if time.monotonic() - self._looked_at >= MIN_INTERVAL:
                self._look_again()
                self._looked_at = time.monotonic()
            yield from self._of_broker
            yield from self._of_server()
            # One after the other: all samples at once would be enough objects to keep the garbage collector busy.
            yield from _families([(name, text) for name, text, _ in CHANNEL], ("channel",), self._of_channels)
            yield from _families([(name, text) for name, text, _ in READERS], ("channel", "kind"), self._of_readers)

    def _of_server(self) -> Iterator[Metric]:
        if self.server is not None:
            numbers = (self.server.open, self.server.cut, self.server.turned_away)
            for (name, text), number in zip(SERVER, numbers, strict=True):
                yield from _families([(name, text)], (), [((), (float(number),))])

    def _look_again(self) -> None:
        self._of_broker, self._of_channels, self._of_readers = [], [], []
        self._of_broker.append(InfoMetricFamily("labhub_build", "Which labhub this is.", {"version": __version__}))
        try:
            view = self._look()
        except Exception as error:  # noqa: BLE001  # it does not serve yet, or no more: the scrape says so
            if not isinstance(error, LabHubError):
                report("item_failed", error, thread="metrics", item="broker")
            self._of_broker.append(_gauge(*ANSWERS, 0))
            return
        self._of_broker.append(_gauge(*ANSWERS, 1))
        unreadable = 0
        with_series = sorted(view.channels, key=lambda entry: entry.channel_name)[: self._max_channels]
        left_out = len(view.channels) - len(with_series)
        self._of_broker += [*_broker_families(view), _gauge(*LEFT_OUT, left_out)]
        for number, entry in enumerate(with_series):
            if number % AT_ONCE == 0:
                time.sleep(PAUSE)
            try:
                if (found := _diagnosed(entry)) is not None:
                    self._add(entry.channel_name, found)
            except Exception as error:  # noqa: BLE001  # around one channel: the others have their series
                unreadable += 1
                if not isinstance(error, LabHubError):
                    report("item_failed", error, thread="metrics", item=entry.channel_name)
        self._of_broker.append(_gauge(*UNREADABLE, unreadable))

    def _add(self, channel: str, found: Diagnosis) -> None:
        of_channel = (channel,), tuple(float(value(found)) for _, _, value in CHANNEL)
        of_readers: Rows = []
        for kind in ("lossless", "lossy"):
            # One that was evicted reads nothing any more: its lag would only grow until it notices.
            if attached := [(r.lag, r.lost) for r in found.readers if r.kind == kind and r.alive and not r.evicted]:
                values = tuple(float(amount(attached)) for _, _, amount in READERS)
                of_readers.append(((channel, kind), values))
        self._of_channels.append(of_channel)
        self._of_readers += of_readers


@contextmanager
def _broker_first() -> Iterator[None]:
    """Let the broker's thread, which takes little, wait for this one less long than Python lets threads wait.

    The garbage collector, which lets nobody else run, waits for the end. A scrape makes no cycles, but so many objects
    that it would look at all that the broker knows again and again.
    """
    before, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        sys.setswitchinterval(before)


def _broker_families(view: BrokerView) -> Iterator[Metric]:
    for name, text, key in BROKER:
        yield from _families([(name, text)], (), [((), (view.numbers.get(key, 0.0),))])
    yield _gauge(*DEAD, sum(entry.dead_since is not None for entry in view.channels))
    yield _gauge(*CONSUMERS, sum(len(entry.consumers) for entry in view.channels))
    # All of them from the start: Prometheus sees no rise in a counter that is new and 1 already.
    refused: Rows = [((code.value,), (view.numbers.get(f"refused.{code}", 0.0),)) for code in ErrorCode]
    yield from _families([REFUSED], ("code",), refused)


def _families(named: list[tuple[str, str]], labels: tuple[str, ...], rows: Rows) -> Iterator[Metric]:
    """Return a metric for each name and help, whose samples are the columns of the rows."""
    for column, (name, text) in enumerate(named):
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(name, text, labels=labels)
        for of, values in rows:
            family.add_metric(of, values[column])
        yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _diagnosed(entry: Registration) -> Diagnosis | None:
    directory = directory_of(entry.metadata)
    if directory is None:
        return None  # another machine's
    try:
        return diagnose(entry.shm_name, directory, slots=False)
    except ChannelNotFound:  # closed a moment ago, or never there
        return None
