"""``labhub tail``: the newest slots of a channel, and those that come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from labhub.cli.completion import Broker, Channel
from labhub.cli.exits import quiet_pipe, write_json_line
from labhub.cli.output import say

if TYPE_CHECKING:
    from labhub.datablock.batch import Batch
    from labhub.hub import Consumer

# Slots at a time: what is printed lags no further behind than that, and a terminal takes no more in one go.
CHUNK = 256


def tail(
    channel: Channel,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, metavar="N", help="How many slots to begin with.")] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with every new slot, until the channel ends or Ctrl-C.")
    ] = False,
    fields: Annotated[str, typer.Option("--fields", metavar="A,B", help="Only these fields.")] = "",
    broker: Broker = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for scripts.")] = False,
) -> None:
    """Print the newest slots of a channel, one a line: time (UTC), seq and values.

    Of an array with more than 16 elements only its shape, least, mean and greatest value are shown. It reads without
    slowing the producer; what it lost because it was too slow is a line of its own.
    """
    from labhub.cli.slots import chosen_fields
    from labhub.hub import connect

    with quiet_pipe(), connect(broker) as hub, hub.consumer(channel) as consumer:
        show = Printer(chosen_fields(consumer.schema, fields), as_json)
        recent = newest(consumer, lines)
        if recent is not None:
            show(recent)
        if not follow:
            return
        if recent is not None:
            consumer.seek(int(recent.seq[-1]) + 1)
        for batch in consumer.batches(max_slots=CHUNK):
            show(batch)


def newest(consumer: Consumer, lines: int) -> Batch | None:
    """Return what the ring holds of the last slots; None if that is nothing."""
    if not lines:
        return None
    batch = consumer.snapshot(last=min(lines, consumer.capacity))
    return batch if len(batch) else None


class Printer:
    """Prints batches, slot by slot."""

    def __init__(self, fields: tuple[str, ...], as_json: bool) -> None:
        self._fields = fields
        self._as_json = as_json

    def __call__(self, batch: Batch) -> None:
        """Print one batch, and before it what was lost."""
        from labhub.cli.slots import records

        if batch.lost:
            self._write({"lost": batch.lost}, f"--- lost {batch.lost} slots ---", batch)
        for record in records(batch, self._fields):
            self._write(record, "", batch)

    def _write(self, record: dict[str, Any], text: str, batch: Batch) -> None:
        from labhub.cli.slots import line_of

        if self._as_json:
            write_json_line(record)
        else:
            say(text or line_of(record, batch.schema))
