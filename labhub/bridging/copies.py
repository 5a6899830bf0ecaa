"""The local channel that is a copy of another machine's."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

from labhub.bridging.clocks import Offset
from labhub.bridging.wire import Address, Message, Offer, policy_of
from labhub.datablock.location import segment_directory
from labhub.datablock.producer import DataBlockProducer, open_producer
from labhub.errors import ChannelBusy, ExportConflict, InvalidArgument, LabHubError, ProtocolError
from labhub.hub import Hub
from labhub.hub.holder import describe_process
from labhub.schema import Schema


class Copy:
    """A DataBlock with the schema, the capacity, the seqs and the timestamps of another machine's.

    Readers here may hold it up as they may hold up any producer, for a second at most; this makes the network wait.

    Parameters
    ----------
    hub : Hub
        Where it is registered.
    address : Address
        Whose it is.
    offer : Offer
        What it is.
    offset : Offset or None
        Of the clock there.

    Attributes
    ----------
    clock : Offset or None
        The last one that the broker was told.

    Raises
    ------
    ExportConflict
        The channel has a producer here.
    ProtocolError
        The offer makes no sense.
    SegmentSpaceError
        There is no room for it.
    """

    def __init__(self, hub: Hub, address: Address, offer: Offer, offset: Offset | None) -> None:
        self.schema = schema_of(offer)
        self.instance = bytes.fromhex(offer.instance)
        self._checksum = policy_of(offer)
        self.lost = 0
        try:
            self._block = self._opened(hub, address, offer)
        except ChannelBusy as busy:
            raise ExportConflict(
                f"{address.channel!r} has a producer here: {describe_process(busy.pid)}; that one goes on, and "
                f"the channel of {address.site!r} is not imported",
                channel=address.channel,
                sites=(address.site,),
            ) from None
        self.next_seq = self._block.next_seq
        self._hub = hub
        self._origin = _origin(address, offer)
        self.clock = offset
        try:
            self._lease = hub.adopt(self._block, self._notes())
        except BaseException:
            self._block.close()  # else the channel would have a producer here that nobody knows
            raise

    def _opened(self, hub: Hub, address: Address, offer: Offer) -> DataBlockProducer:
        def attempt() -> DataBlockProducer:
            return open_producer(
                address.channel,
                self.schema,
                directory=segment_directory(hub.name),
                capacity=offer.capacity,
                lossless=offer.lossless,
                checksum=self._checksum,
                first_seq=offer.resume,
            )

        block = attempt()
        if not block.took_over:
            return block
        block.close()  # left behind by a bridge that died: whose slots they are cannot be told any more
        return attempt()

    def _notes(self) -> dict[str, Any]:
        clock = {
            "clock_offset_ns": None if self.clock is None else self.clock.offset_ns,
            "clock_round_trip_ns": None if self.clock is None else self.clock.round_trip_ns,
        }
        return {"origin": self._origin | clock}

    def set_clock(self, offset: Offset) -> None:
        """Tell the broker what the clock there says now, if that is another thing than before."""
        before = self.clock
        if before is not None and not offset.contradicts(before):
            return

        def noted(answer: Future[None]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                self.clock = before  # it is told the next time

        self.clock = offset
        try:
            self._hub.amend(self._block, self._notes()).add_done_callback(noted)
        except LabHubError:
            self.clock = before

    def write(self, message: Message) -> int:
        """Write what is new of a message; how many slots that is."""
        known = max(0, self.next_seq - message.first_seq)
        if known >= len(message.headers):
            return 0
        self.lose_until(message.first_seq)
        rest = np.frombuffer(message.payload, np.uint8)[known * message.slot_nbytes :]
        try:
            return self._block.write_copies(rest, message.headers[known:])
        finally:
            self.next_seq = max(self.next_seq, self._block.next_seq)

    def lose_until(self, seq: int) -> None:
        """Count the slots before that one as lost; readers see it with the next slot."""
        if seq > self.next_seq:
            self.lost += seq - self.next_seq
            self.next_seq = seq

    def close(self) -> None:
        """End the channel; readers get what is left."""
        self._lease.close()


def schema_of(offer: Offer) -> Schema:
    """Read the schema of an offer.

    Raises
    ------
    ProtocolError
        It is none, or one that this labhub does not know; a newer one may.
    """
    try:
        return Schema.from_json(offer.schema)
    except InvalidArgument as error:
        raise ProtocolError(f"{error}; if the labhub of the other machine is newer, update the one here") from None


def _origin(address: Address, offer: Offer) -> dict[str, Any]:
    return {
        "site": address.site,
        "hub": address.hub,
        "host": offer.host,
        "boot_id": offer.boot_id,
        "path": list(offer.path),
        "instance_id": offer.instance,
        "epoch": offer.epoch,
    }
