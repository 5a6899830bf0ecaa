"""``labhub info``: everything about one channel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labhub.cli.completion import Broker, Channel
from labhub.cli.exits import quiet_pipe, write_json
from labhub.cli.output import say
from labhub.words import age, instant, one_line, size, visible

if TYPE_CHECKING:
    from labhub.datablock.diagnostics import Diagnosis
    from labhub.hub import ChannelInfo
    from labhub.schema import Schema

Section = tuple[str, list[tuple[str, str]]]


def info(
    channel: Channel,
    broker: Broker = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Show everything about one channel: what its slots look like, who writes and reads it, and how its ring stands."""
    from labhub.hub import connect

    with connect(broker) as hub:
        found = hub.find(channel)
    segment, why = look(found)
    with quiet_pipe():
        if as_json:
            write_json({"channel": found.to_dict(), "segment": segment.to_dict() if segment else None, "why": why})
            return
        for title, lines in sections(found, segment, why):
            say(title)
            for name, value in lines:
                say(f"  {visible(name):<13}  {value}")


def look(channel: ChannelInfo) -> tuple[Diagnosis | None, str]:
    """Look at the segment of a channel; without one, why not."""
    from labhub import diagnose
    from labhub.errors import LabHubError

    if channel.directory is None:
        return None, f"its segment is not on this machine, but on {channel.producer_hostname!r}"
    try:
        return diagnose(channel.shm_name, channel.directory), ""
    except LabHubError as error:
        return None, one_line(error.told("shell"))


def sections(channel: ChannelInfo, segment: Diagnosis | None, why: str) -> Iterator[Section]:
    """What is shown, in its order."""
    yield (
        "channel",
        _pairs(
            name=channel.name,
            producer=f"pid {channel.producer_pid} on {channel.producer_hostname or '?'}, {channel.liveness}",
            registered=f"{age(channel.age_s)} ago",
            readers=f"{channel.consumers} registered",
        ),
    )
    if channel.origin is not None:
        yield "imported from", [(key, str(value)) for key, value in channel.origin.items()]
    yield "schema", _schema(channel.schema)
    if segment is None:
        yield "segment", _pairs(none=why)
        return
    yield "segment", _segment(segment, channel.history)
    yield "ring", _ring(segment)
    yield "counters", _pairs(**{name: str(count) for name, count in segment.counters.items()})
    yield "readers", _readers(segment)


def _pairs(**facts: str) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), value) for name, value in facts.items()]


def _schema(schema: Schema | None) -> list[tuple[str, str]]:
    if schema is None:
        return _pairs(none="the producer declared none")
    lines = []
    for name in schema.fields:
        kind = schema.dtype if schema.dtype.names is None else schema.dtype[name]
        unit = schema.units.get(name)
        lines.append((name, f"{kind}" + (f", in {unit}" if unit else "")))
    lines += [(f"units of {name}", unit) for name, unit in schema.units.items() if name not in schema.fields]
    if schema.shape:
        dims = schema.dims or ("",) * len(schema.shape)
        lines.append(("slot shape", ", ".join(f"{d} {n}".strip() for d, n in zip(dims, schema.shape, strict=True))))
    if schema.sample_rate is not None:
        lines.append(("sample rate", f"{schema.sample_rate:g} per second"))
    lines += [(f"note {key}", str(value)) for key, value in schema.attrs.items()]
    return lines


def _segment(segment: Diagnosis, history: float | None) -> list[tuple[str, str]]:
    return _pairs(
        path=segment.path,
        size=f"{size(segment.nbytes)}, {segment.capacity} slots of {size(segment.slot_nbytes)}"
        + ("" if history is None else f", {history:.4g} s"),
        owner=f"pid {segment.pid}, {'alive' if segment.alive else 'dead'}" + (", closed" if segment.closed else ""),
        epoch=str(segment.epoch),
        clock=clock_of(segment),
        created=instant(segment.created_ns),
        policy=f"{segment.policy}, {segment.sync_policy}, checksum {segment.checksum_policy}",
        instance=segment.instance_id,
        schema_hash=segment.schema_hash,
    )


def clock_of(segment: Diagnosis) -> str:
    """Say how the times of the slots compare with the wall clock, and how often that was stepped."""
    steps = segment.counters["clock_steps"]
    return f"{segment.clock_ahead_ns / 1e6:+.3f} ms from the wall clock" + (f", {steps} steps" if steps else "")


def _ring(segment: Diagnosis) -> list[tuple[str, str]]:
    newest = "nothing was written yet"
    if segment.commit_ns:
        newest = f"{instant(segment.commit_ns)}, {age(time.time() - segment.commit_ns / 1e9)} ago"
    states = ", ".join(f"{count} {state}" for state, count in segment.slots.items() if count)
    return _pairs(head=str(segment.head), newest=newest, slots=states)


def _readers(segment: Diagnosis) -> list[tuple[str, str]]:
    if not segment.readers:
        return _pairs(none="nobody reads it")

    def state(reader: Any) -> str:
        return "evicted, " if reader.evicted else "" if reader.alive else "dead, "

    return [
        (f"pid {r.pid}", f"{r.kind}, {state(r)}lag {r.lag}, received {r.received}, lost {r.lost}")
        for r in segment.readers
    ]
