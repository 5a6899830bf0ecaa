"""One process of the demo: ``python -m labhub.cli.demo.worker serve|produce|read|record NAME``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from labhub.cli.demo.messages import Control, Report, State
from labhub.cli.demo.readers import READERS, Finding, Reader
from labhub.cli.demo.sources import SOURCES, Source
from labhub.cli.demo.tally import Tally
from labhub.errors import Evicted, LabHubError, TimeoutExpired
from labhub.hub import Consumer, Producer, connect, named_broker

if TYPE_CHECKING:
    from labhub.datablock.batch import Batch

BROKER = "demo"
# How often a worker says how it is doing (in seconds).
REPORT_EVERY = 0.2
# A producer that was held up makes up at most this much (in seconds) before its schedule moves.
MAX_ARREARS = 0.25
# How long a reader waits for its producer to register (in seconds).
PATIENCE = 20.0


def produce(name: str, control: Control) -> None:
    """Write one channel from the word `GO` to the word `STOP`, or to the end of the source."""
    source = SOURCES[name]()
    with connect(BROKER) as hub, hub.producer(name, **source.declaration) as producer:
        control.send(Report(state="ready"))
        control.go.wait()
        slots, rate = _write_all(source, producer, control)
    # After the close, so that a report of this state means that the channel has ended.
    control.send(Report(state="done", slots=slots, rate=rate))


def _write_all(source: Source, producer: Producer, control: Control) -> tuple[int, float]:
    slots, rate = 0, 0.0
    start = due = time.monotonic()
    next_report = 0.0
    while True:
        due = max(due + source.period, time.monotonic() - MAX_ARREARS)
        if control.stop.wait(max(0.0, due - time.monotonic())) or not source.write(producer):
            return slots, rate
        slots += 1
        now = time.monotonic()
        rate = slots / (now - start)
        if now >= next_report:
            next_report = now + REPORT_EVERY
            control.send(Report(state="running", slots=slots, rate=rate))


def read(name: str, control: Control) -> None:
    """Read one channel from before its first slot until it has ended and everything is read."""
    reader = READERS[name]
    with connect(BROKER) as hub:
        hub.wait_for(reader.channel, timeout=PATIENCE)
        with hub.consumer(reader.channel, mode=reader.mode) as consumer:
            ReadingLoop(reader, consumer, control).run()


class ReadingLoop:
    """Reads, counts and reports until the end of the stream."""

    def __init__(self, reader: Reader, consumer: Consumer, control: Control) -> None:
        self._reader = reader
        self._consumer = consumer
        self._control = control
        self._look: Callable[..., Finding] = reader.make_look(consumer.schema)
        self._finding = Finding()
        self._tally = Tally()
        self._wrong = 0
        self._evictions = 0
        self._next_report = 0.0

    def run(self) -> None:
        """Read to the end; an eviction is counted and survived, as a recorder would."""
        self._control.send(Report(state="ready"))
        while not self._consumer.ended or self._consumer.lag:
            try:
                for batch in self._consumer.batches(max_slots=self._reader.max_slots, timeout=1.0):
                    self._take(batch)
            except Evicted:
                self._evictions += 1
            except TimeoutExpired:
                if self._control.stop.is_set():
                    raise
        self._control.send(self._report("done"))

    def _take(self, batch: Batch) -> None:
        self._tally.add(batch)
        self._finding = self._look(batch)
        self._wrong += self._finding.wrong
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + REPORT_EVERY
            self._control.send(self._report("running"))
        if self._reader.delay:
            self._control.stop.wait(self._reader.delay)

    def _report(self, state: State) -> Report:
        p50_ms, p99_ms = self._tally.percentiles()
        return Report(
            state=state,
            slots=self._tally.received,
            lost=self._consumer.lost,
            wrong=self._wrong + self._tally.disordered,
            rate=self._tally.rate,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            now=self._finding.now,
            trace=self._finding.trace,
            message=f"held up its producer and was evicted, {self._evictions} in all" if self._evictions else "",
        )


def serve(_name: str, control: Control) -> None:
    """Run the demo's broker until the word `STOP`."""
    with named_broker(BROKER, "tcp://127.0.0.1:0") as service:
        service.start()
        control.send(Report(state="ready", now=service.endpoint))
        control.stop.wait()
    control.send(Report(state="done"))


def record(store: str, control: Control) -> None:
    """Record every channel, from before its first slot to its end, into a store of that path."""
    with connect(BROKER) as hub:
        for channel in SOURCES:
            hub.wait_for(channel, timeout=PATIENCE)
        with hub.record(*SOURCES, store=store, follow=False) as recording:
            control.send(Report(state="ready"))
            control.go.wait()
            while not recording.wait(REPORT_EVERY):
                status = recording.status
                control.send(Report(state="running", slots=status.n_slots, lost=status.missing))
        status = recording.status
    control.send(Report(state="done", slots=status.stored, lost=status.missing))


ROLES: dict[str, Callable[[str, Control], None]] = {"serve": serve, "produce": produce, "read": read, "record": record}


def main(role: str, name: str) -> int:
    """Play one role; whatever ends it early is told to the director in one line."""
    control = Control()
    try:
        ROLES[role](name, control)
    except LabHubError as error:
        control.send(Report(state="failed", message=str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
