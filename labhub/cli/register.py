"""``labhub register``: tell the broker of a channel whose producer does not speak to it, such as a C++ program."""

from __future__ import annotations

import ast
import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labhub.cli.ending import Ending
from labhub.cli.output import say
from labhub.errors import BrokerUnreachable, ChannelNotFound, InvalidArgument, ProducerGone, SchemaMismatch

if TYPE_CHECKING:
    from labhub.datablock.diagnostics import Diagnosis
    from labhub.schema import Schema

TIMEOUT = 5.0  # for the broker's answers, in seconds
LOOK_INTERVAL = 0.5  # of looks whether the producer goes on, in seconds


def register(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Name of the channel and of its segment.")],
    schema: Annotated[
        str,
        typer.Option(
            "--schema",
            "-s",
            metavar="SCHEMA",
            help="What one slot looks like: a numpy dtype such as '<f8' or \"[('t', '<f8'), ('x', '<f4', (3,))]\", the "
            "JSON of a schema, or @FILE with one of these in it.",
        ),
    ],
    units: Annotated[
        str, typer.Option("--units", "-u", metavar="UNITS", help="One unit for all fields, or 't=s,x=mm'.")
    ] = "",
    align: Annotated[bool, typer.Option("--align", help="Lay the fields out as a C++ compiler does.")] = False,
    broker: Annotated[str, typer.Option("--broker", "-b", metavar="NAME", help="Name of the broker.")] = "default",
    stay: Annotated[
        bool, typer.Option("--stay", help="Stay until its producer ends, and register it again with each new broker.")
    ] = False,
) -> None:
    """Register the segment of a running producer that does not speak to the broker itself.

    The segment is checked first: its producer must live, and its slots must have the size of the schema. The channel
    vanishes with its producer. A broker that is restarted does not know it any more, except with --stay.
    """
    from labhub.datablock.diagnostics import diagnose
    from labhub.datablock.location import segment_directory

    declared = parse_schema(schema, units=units, align=align)
    directory = segment_directory(broker)
    try:
        found = diagnose(channel, directory)
    except ChannelNotFound:
        raise ChannelNotFound(
            f"there is no segment {channel!r} in {directory}; start its producer first, or name another --broker",
            channel=channel,
        ) from None
    require_match(found, declared, dtype_text=schema)
    with Ending() as ending, announced(broker, directory, found, declared):
        say(f"channel {channel!r} registered: pid {found.pid}, {found.capacity} slots of {found.slot_nbytes} bytes")
        sys.stdout.flush()
        while stay and not ending.asked and _goes_on(found, directory):
            time.sleep(LOOK_INTERVAL)


def parse_schema(text: str, *, units: str = "", align: bool = False) -> Schema:
    """Read a schema from what a user typed.

    Raises
    ------
    InvalidArgument
        It is neither the JSON of a schema nor a numpy dtype, or the file cannot be read.
    """
    from labhub.schema import Schema

    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the schema file cannot be read: {error}") from None
    text = text.strip()
    found = Schema.from_json(text) if text.startswith("{") else Schema.infer(dtype=_dtype(text, align))
    if not units:
        return found
    if "=" not in units:
        return dataclasses.replace(found, units=dict.fromkeys(found.fields, units))
    pairs = (pair.partition("=") for pair in units.split(","))
    return dataclasses.replace(found, units={name.strip(): unit.strip() for name, _, unit in pairs})


def _dtype(text: str, align: bool) -> Any:
    """Turn a dtype's text into one; a literal only, nothing in it is ever executed."""
    import numpy as np

    try:
        return np.dtype(ast.literal_eval(text) if text[:1] in ("[", "(") else text, align=align)
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise InvalidArgument(f"{text[:200]!r} is neither a numpy dtype nor the JSON of a schema: {error}") from None


def require_match(found: Diagnosis, declared: Schema, *, dtype_text: str) -> None:
    """Check that a segment can be what its user says.

    Raises
    ------
    ProducerGone
        Nobody writes it any more.
    SchemaMismatch
        Its slots have another size, or it declares another schema itself.
    """
    from labhub.schema import UNDECLARED_HASH

    if found.closed or not found.alive:
        raise ProducerGone(
            f"the producer of {found.path}, process {found.pid}, "
            f"{'has closed it' if found.closed else 'is dead'}; start it again, then register",
            pid=found.pid,
        )
    if found.slot_nbytes != declared.slot_nbytes:
        line = f"slot: {found.slot_nbytes} bytes in the segment, {declared.slot_nbytes} in the schema"
        raise SchemaMismatch(
            f"{found.path} does not fit the schema: {line}{_hint_align(found, dtype_text)}", difference=(line,)
        )
    if found.schema_hash not in (UNDECLARED_HASH.hex(), declared.layout_hash.hex()):
        line = f"hash: {found.schema_hash} in the segment, {declared.layout_hash.hex()} of the schema"
        raise SchemaMismatch(f"{found.path} declares another schema itself: {line}", difference=(line,))


def _hint_align(found: Diagnosis, dtype_text: str) -> str:
    try:
        fits = parse_schema(dtype_text, align=True).slot_nbytes == found.slot_nbytes
    except InvalidArgument:
        return ""
    return "; with --align it would fit (a C++ struct has padding)" if fits else ""


def metadata_of(found: Diagnosis, declared: Schema, directory: str) -> dict[str, Any]:
    """Return what the broker should know, with the keys of `DataBlockProducer.metadata` and of `place_of`."""
    from labhub.datablock.config import ChecksumPolicy, ConsumerSyncPolicy, DataBlockPolicy
    from labhub.liveness import place_of

    return {
        "instance_id": found.instance_id,
        "epoch": found.epoch,
        "schema": declared.to_json(),
        "policy": DataBlockPolicy[found.policy].wire,
        "consumer_sync_policy": ConsumerSyncPolicy[found.sync_policy].wire,
        "checksum_policy": ChecksumPolicy[found.checksum_policy].wire,
        "ring_buffer_capacity": found.capacity,
        "slot_nbytes": found.slot_nbytes,
    } | place_of(directory)


def _goes_on(found: Diagnosis, directory: str) -> bool:
    """Whether the producer that was found still writes that segment."""
    from labhub.datablock.diagnostics import diagnose

    try:
        now = diagnose(found.name, directory)
    except ChannelNotFound:
        return False
    return now.alive and not now.closed and (now.pid, now.instance_id) == (found.pid, found.instance_id)


@contextmanager
def announced(broker: str, directory: str, found: Diagnosis, declared: Schema) -> Iterator[None]:
    """Register a segment for its producer, wait for the broker's answer, and keep it registered while inside.

    It stays registered with the broker of the end.
    """
    from labhub.hub.directory import SCHEMA_VERSION
    from labhub.hub.local_broker import broker_place, running_broker
    from labhub.messenger import Messenger, ProducerInfo

    place = running_broker(broker)
    with Messenger() as messenger:
        if not messenger.connect(place.endpoint, place.public_key, resolve=lambda: broker_place(broker)):
            raise BrokerUnreachable(f"the broker {broker!r} does not answer", endpoint=place.endpoint)
        info = ProducerInfo(
            shm_name=found.name,
            producer_pid=found.pid,
            schema_hash=declared.layout_hash,
            schema_version=SCHEMA_VERSION,
            metadata=metadata_of(found, declared, directory),
        )
        try:
            messenger.register_producer(found.name, info).result(TIMEOUT)
        except TimeoutError:
            raise BrokerUnreachable(
                f"the broker {broker!r} did not confirm {found.name!r} within {TIMEOUT:g} s", endpoint=place.endpoint
            ) from None
        yield
