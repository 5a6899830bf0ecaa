"""iceoryx2: zero-copy publish and subscribe, polled, or with its event service."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle, islice
from typing import Any

import numpy as np

from bench.contender import PATIENCE, Contender, Figures, Gate, Place
from bench.payload import LINE, Slot, measured, sources, values
from bench.workload import Workload


class Iceoryx(Contender):
    """What polling and waiting have in common: loan, fill, send; receive, look."""

    def missing(self) -> str | None:
        """It is a package of its own."""
        return None if importlib.util.find_spec("iceoryx2") else "iceoryx2 is not installed"

    def supports(self, workload: Workload) -> bool:
        """Take part in streams of lossless readers."""
        return workload.kind == "stream" and not workload.lossy

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Loan a sample for each slot and fill it in place."""
        import iceoryx2 as iox

        service = self.service(workload, place)
        publisher = (
            service.publisher_builder()
            .initial_max_slice_len(workload.nbytes)
            .backpressure_strategy(iox.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )
        told = self.notifier(place)
        gate.created()
        gate.start()
        nbytes, loan, move = workload.nbytes, publisher.loan_slice_uninit, ctypes.memmove
        source = sources(workload)
        addresses = [row.ctypes.data for row in source]  # once: numpy takes half a microsecond to say it
        for address in islice(cycle(addresses), workload.amount):
            sample = loan(nbytes)
            move(sample.payload_ptr, address, nbytes)
            sample.assume_init().send()
            told()
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Receive samples and look into them in place."""
        gate.await_created()
        subscriber = self.service(workload, place).subscriber_builder().buffer_size(workload.slots_in_flight).create()
        wait = self.waiter(place)
        gate.start()
        pointers = self.pointers(subscriber, wait)
        if workload.nbytes == LINE:
            found: Iterator[int] = (ctypes.c_int64.from_address(pointer).value for pointer in pointers)
        else:
            found = values(self.views(pointers, workload.nbytes), workload)
        figures = measured(found, workload)
        gate.finish()
        return figures

    def service(self, workload: Workload, place: Place) -> Any:
        """Open the service of a run: nothing is lost, and so many samples are in flight."""
        import iceoryx2 as iox

        iox.set_log_level(iox.LogLevel.Error)
        self.node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
        return (
            self.node.service_builder(iox.ServiceName.new(place.name))
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .payload_alignment(iox.Alignment.new(LINE))
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(workload.slots_in_flight)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(workload.consumers)
            .open_or_create()
        )

    def pointers(self, subscriber: Any, wait: Any) -> Iterator[int]:
        """Yield where each sample is; it is held until the next is asked for."""
        receive = subscriber.receive
        while True:
            sample = receive()
            if sample is None:
                wait()
            else:
                yield sample.payload_ptr

    def views(self, pointers: Iterator[int], nbytes: int) -> Iterator[Slot]:
        """Look at samples as arrays; made once for each place, which is faster than once for each sample."""
        made: dict[int, Slot] = {}
        kind = ctypes.c_int64 * (nbytes // 8)
        for pointer in pointers:
            view = made.get(pointer)
            if view is None:
                view = made[pointer] = np.frombuffer(kind.from_address(pointer), np.int64)
            yield view

    def notifier(self, place: Place) -> Any:
        """Return what is called after each sample."""
        raise NotImplementedError

    def waiter(self, place: Place) -> Any:
        """Return what is called when there is no sample."""
        raise NotImplementedError


class Polling(Iceoryx):
    """Ask again until there is one."""

    name = "iceoryx2, polling"

    def notifier(self, place: Place) -> Any:
        """Nobody waits to be told."""
        return lambda: None

    def waiter(self, place: Place) -> Any:
        """Let others run."""
        return os.sched_yield


class Event(Iceoryx):
    """A notification with every sample, and a listener that sleeps."""

    name = "iceoryx2, event"

    def events(self, place: Place) -> Any:
        """Open the event service beside the other one."""
        import iceoryx2 as iox

        return self.node.service_builder(iox.ServiceName.new(place.name)).event().open_or_create()

    def notifier(self, place: Place) -> Any:
        """Notify; a listener whose buffer is full is awake anyway."""
        import iceoryx2 as iox

        notify = self.events(place).notifier_builder().create().notify

        def told() -> None:
            with suppress(iox.NotifierNotifyError):
                notify()

        return told

    def waiter(self, place: Place) -> Any:
        """Sleep until notified."""
        import iceoryx2 as iox

        wait, patience = (
            self.events(place).listener_builder().create().timed_wait,
            iox.Duration.from_secs(int(PATIENCE)),
        )
        return lambda: wait(patience)
