"""labhub: its everyday calls, a lossless reader, no broker in between."""

from __future__ import annotations

from collections.abc import Iterator

from bench.contender import Contender, Figures, Gate, Place
from bench.payload import Slot, blocks, buffer, measured, measured_in_batches, rows, values
from bench.workload import Workload
from labhub import Schema
from labhub.datablock.consumer import DataBlockConsumer, open_consumer
from labhub.datablock.producer import open_producer

CHANNEL = "bench"


def schema_of(workload: Workload) -> Schema:
    """One slot: words."""
    return Schema.infer(dtype="i8", shape=workload.nbytes // 8)


class Labhub(Contender):
    """`write` and `views`, one by one; `write_many` and `batches`."""

    name = "labhub"
    role = "labhub"
    batches = True

    def supports(self, workload: Workload) -> bool:
        """Take part in every stream."""
        return workload.kind == "stream"

    def produce(self, workload: Workload, place: Place, gate: Gate) -> None:
        """Write from the source."""
        # Nobody is evicted: a consumer that has to wait for its turn on a shared CPU is not stuck.
        with open_producer(
            CHANNEL,
            schema_of(workload),
            directory=str(place.directory),
            capacity=workload.slots_in_flight,
            evict_after=None,
        ) as producer:
            gate.created()
            gate.start()
            if workload.batch > 1:
                for block in blocks(workload):
                    producer.write_many(block)
            else:
                write = producer.write
                for row in rows(workload):
                    write(row)
            gate.finish()

    def consume(self, workload: Workload, place: Place, gate: Gate) -> Figures:
        """Read in place, or in copied batches; a lossy consumer takes what it gets, and counts."""
        gate.await_created()
        lossless = place.consumer < workload.consumers
        with open_consumer(
            CHANNEL,
            schema_of(workload),
            directory=str(place.directory),
            mode="lossless" if lossless else "stream",
        ) as consumer:
            gate.start()
            if not lossless:
                figures = self._observe(consumer, workload)
            elif workload.batch > 1:
                figures = measured_in_batches(self._arrays(consumer, workload), workload, place)
            else:
                figures = measured(values(consumer.views(timeout=None), workload), workload)
            gate.finish()
            return figures

    def _arrays(self, consumer: DataBlockConsumer, workload: Workload) -> Iterator[Slot]:
        for batch in consumer.batches(min_slots=workload.batch, out=buffer(workload)):  # whole ones, as everybody's
            yield batch.data

    def _observe(self, consumer: DataBlockConsumer, workload: Workload) -> Figures:
        received = 0
        while received + consumer.lost < workload.amount:
            received += len(next(consumer.batches(max_slots=workload.slots_in_flight)))
        return {"received": received, "lost": consumer.lost}
