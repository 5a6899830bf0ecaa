"""What a schema that does not fit differs in, in words."""

from __future__ import annotations

from labhub.datablock.diagnostics import diagnose
from labhub.errors import LabHubError, SchemaConflict, SchemaMismatch
from labhub.hub.holder import describe_process
from labhub.protocol.messages import ChannelEntry
from labhub.schema import Schema


def conflict(channel: str, wanted: Schema, registered: Schema | None, pid: int) -> SchemaConflict | None:
    """Say that a channel is held with another schema than the wanted one; None if that is not so, or not known."""
    lines = () if registered is None else wanted.difference(registered)
    return conflict_of(channel, lines, pid) if lines else None


def conflict_of(channel: str, lines: tuple[str, ...], pid: int) -> SchemaConflict:
    """Say that process `pid` holds a channel with a schema that differs in these lines."""
    return SchemaConflict(
        f"channel {channel!r} already has a producer: {describe_process(pid)}, with another schema:\n  "
        + "\n  ".join(lines)
        + "\nclose that one first, write what it declares, or choose another name",
        difference=lines,
        pid=pid,
    )


def unexpected(entry: ChannelEntry, expected: Schema, declared: Schema | None) -> SchemaMismatch | None:
    """Say that a channel does not carry what its reader expects; None if it does."""
    name = entry.channel_name
    lines = (f"{expected} here, nothing declared there",) if declared is None else expected.difference(declared)
    if not lines:
        return None
    return SchemaMismatch(
        f"channel {name!r} carries something else than was expected:\n  " + "\n  ".join(lines),
        difference=lines,
    )


def falsely_declared(entry: ChannelEntry, declared: Schema, directory: str) -> SchemaMismatch:
    """Say that a segment holds slots of another schema than the broker was told."""
    registered = declared.layout_hash.hex()
    try:
        found = diagnose(entry.shm_name, directory)
    except LabHubError:  # gone meanwhile
        lines: tuple[str, ...] = (f"schema hash: {registered} registered, another one in the segment",)
    else:
        lines = (f"schema hash: {registered} registered, {found.schema_hash} in the segment",)
        if found.slot_nbytes != declared.slot_nbytes:
            lines += (f"slot: {declared.slot_nbytes} bytes registered, {found.slot_nbytes} in the segment",)
    return SchemaMismatch(
        f"channel {entry.channel_name!r} is registered as {declared!r}, but its segment holds something else:\n  "
        + "\n  ".join(lines)
        + f"\nits producer, {describe_process(entry.producer_pid)}, must register what it writes",
        difference=lines,
    )
