"""iceoryx2: publish and subscribe, polled without a pause, or with its event service."""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bench.contender import PATIENCE, Gate, Place

from latency.duplex import CAPACITY, Duplex, Loops, PythonLoops


class Record(ctypes.Structure):
    """64 bytes."""

    _fields_ = [("words", ctypes.c_int64 * 8)]  # ctypes wants it so


class Polling(Duplex):
    """Loan, fill, send; ask again until there is a sample."""

    name = "iceoryx2, polling"
    sleeps = False

    def missing(self) -> str | None:
        """It is a package of its own."""
        return None if importlib.util.find_spec("iceoryx2") else "iceoryx2 is not installed"

    @contextmanager
    def ends(self, place: Place, gate: Gate) -> Iterator[Loops]:
        """Open a service for each way, before the other process sends anything."""
        import iceoryx2 as iox

        iox.set_log_level(iox.LogLevel.Error)
        node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
        own, other = (f"{place.name}-{way}" for way in (("there", "back") if place.consumer < 0 else ("back", "there")))
        publisher = self.service(node, own).publisher_builder().create()
        subscriber = self.service(node, other).subscriber_builder().buffer_size(CAPACITY).create()
        told, wait = self.signals(node, own, other)
        gate.start()
        loan, receive_sample, record = publisher.loan_uninit, subscriber.receive, Record()
        words, word_at = record.words, ctypes.c_int64.from_address

        def send(word: int) -> None:
            words[0] = word
            loan().write_payload(record).send()
            told()

        def receive() -> int:
            while (sample := receive_sample()) is None:
                wait()
            return word_at(sample.payload_ptr).value

        yield PythonLoops(send, receive)

    def service(self, node: Any, name: str) -> Any:
        """Open the service of one way."""
        import iceoryx2 as iox

        builder = node.service_builder(iox.ServiceName.new(name)).publish_subscribe(Record)
        builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(CAPACITY)  # nothing is lost
        return builder.max_publishers(1).max_subscribers(1).open_or_create()

    def signals(self, node: Any, own: str, other: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return what is called after each sample sent, and while there is none."""
        return bool, bool  # nothing is cheaper to call


class Event(Polling):
    """A notification with every sample, and a listener that sleeps."""

    name = "iceoryx2, event"
    sleeps = True

    def signals(self, node: Any, own: str, other: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """Notify, and sleep until notified."""
        import iceoryx2 as iox

        notifier, listener = (
            node.service_builder(iox.ServiceName.new(name)).event().open_or_create() for name in (own, other)
        )
        notify, wait = notifier.notifier_builder().create().notify, listener.listener_builder().create().timed_wait
        patience = iox.Duration.from_secs(int(PATIENCE))

        def told() -> None:
            with suppress(iox.NotifierNotifyError):  # a listener whose buffer is full is awake anyway
                notify()

        return told, lambda: wait(patience)
