"""What a batch costs: `datasets()` against the copy that one would write by hand, in one process."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.contender import Contender, Figures, Gate, Place, WrongSlot
from bench.contenders.ring import CHANNEL
from bench.workload import Workload
from labhub import Schema
from labhub.datablock.consumer import open_consumer
from labhub.datablock.producer import open_producer


class Batches(Contender):
    """Write `batch` slots, and time how long their reader takes; `amount` times."""

    def supports(self, workload: Workload) -> bool:
        """Measure nothing else."""
        return workload.kind == "datasets"

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Leave the machine to the other."""
        gate.start()
        gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Be both sides."""
        gate.start()
        slots = np.zeros((workload.batch, workload.nbytes // 8))
        taken = []
        with self.reading(workload, place) as (write, read):
            for number in range(workload.amount):
                slots[:] = number
                write(slots)
                began = perf_counter()
                found = read()
                taken.append(perf_counter() - began)
                if not (found == number).all():
                    raise WrongSlot(f"batch {number} is not what was written")
        gate.finish()
        return {"ms": median(taken) * 1e3}

    @abstractmethod
    @contextmanager
    def reading(self, workload: Workload, place: Place) -> Iterator[Channel]:
        """Give what writes the slots, and what reads them."""
        raise NotImplementedError


Values = NDArray[np.float64]
Channel = tuple[Callable[[Values], object], Callable[[], Values]]


class Datasets(Batches):
    """An `xarray.Dataset` with time and seq coordinates."""

    name = "labhub"
    role = "labhub"

    @contextmanager
    def reading(self, workload: Workload, place: Place) -> Iterator[Channel]:
        """Use the everyday calls."""
        schema, directory = Schema.infer(dtype="f8", shape=workload.nbytes // 8), str(place.directory)
        with (
            open_producer(CHANNEL, schema, directory=directory, capacity=workload.slots_in_flight) as producer,
            open_consumer(CHANNEL, schema, directory=directory) as consumer,
        ):
            datasets = consumer.datasets(max_slots=workload.batch)
            yield producer.write_many, lambda: next(datasets)["value"].values


class NumpyCopy(Batches):
    """The slots and their times, copied out of two arrays."""

    name = "numpy copy"
    role = "limit"

    @contextmanager
    def reading(self, workload: Workload, place: Place) -> Iterator[Channel]:
        """Use arrays of the same size."""
        ring = np.zeros((workload.slots_in_flight, workload.nbytes // 8))
        times = np.zeros(workload.slots_in_flight, np.int64)
        n = workload.batch

        def write(slots: Values) -> None:
            ring[:n] = slots

        def read() -> Values:
            times[:n].copy()
            return ring[:n].copy()

        yield write, read
