"""Who lives on after a death: readers that keep the books, and a producer whose every slot can be checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from labhub import ChecksumPolicy, ConsumerSyncPolicy, DataBlockPolicy, Schema, _native
from labhub.datablock.consumer import Mode, open_consumer
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer
from labhub.errors import Evicted
from tests.faults.books import Books
from tests.faults.children import payload

CAPACITY = 8  # as in driver.cpp
WORDS = 8
FRAME = Schema.infer(dtype="u8", shape=(WORDS,))
BOUND = 5.0  # s; the dead may hold nobody up for longer


@contextmanager
def producing(evict_after: float | None = None) -> Iterator[DataBlockProducer]:
    """Open a producer of the released build on what the driver left; like the driver's, it declares no schema."""
    native = _native.Producer(
        segment_directory(), "x", capacity=CAPACITY, slot_nbytes=FRAME.slot_nbytes, schema_hash=bytes(32)
    )
    with DataBlockProducer(
        native,
        "x",
        FRAME,
        segment_directory(),
        policy=DataBlockPolicy.RING_BUFFER,
        sync_policy=ConsumerSyncPolicy.SEQUENTIAL_SYNC,
        checksum_policy=ChecksumPolicy.NONE,
        timeout=BOUND,
        evict_after=evict_after,
    ) as producer:
        yield producer


def write(producer: DataBlockProducer, n: int) -> None:
    """Write `n` slots; each takes less than `BOUND`, or raises."""
    for _ in range(n):
        producer.write(payload(producer.next_seq, WORDS))


class Reader:
    """Reads everything in a thread of its own, and keeps the books."""

    def __init__(self, mode: Mode) -> None:
        self.books = Books(open_consumer("x", FRAME, mode=mode, start="oldest"))
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> Reader:
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            while self._read():
                pass
        except BaseException as error:  # noqa: BLE001  # reported by finish
            self.error = error

    def _read(self) -> bool:
        try:
            return self.books.read(timeout=2 * BOUND)
        except Evicted as evicted:
            self.books.enter(evicted)
            return True

    def finish(self) -> None:
        """Wait for the end of the stream, and balance the books."""
        if not self._thread.is_alive() and self._thread.ident is None:
            self._thread.start()
        self._thread.join(3 * BOUND)
        assert not self._thread.is_alive(), "a reader hangs"
        if self.error is not None:
            raise self.error
        self.books.balance()
        self.books.consumer.close()
