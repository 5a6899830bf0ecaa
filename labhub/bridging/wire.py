"""What bridges tell each other: keys, offers of channels, and slots. No I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.errors import LabHubError, ProtocolError
from labhub.names import NAME

VERSION = 1
ROOT = "labhub"
EVERY_CHANNEL = f"{ROOT}/*/*/*/alive/*"
"""The liveliness tokens of all channels of all sites."""
ANSWER_PATIENCE = 2.0
"""How long an exporting bridge waits, before it answers, for the first look at its channel (in seconds)."""
MAX_GAP = 1 << 48
"""A jump of the seq by more is a broken message, not a loss (in slots)."""


class Address(NamedTuple):
    """Where a channel comes from.

    Attributes
    ----------
    site : str
        What its machine is called.
    hub : str
        Identity of the hub there: another one for each machine and broker, the same after a restart.
    channel : str
        Its name.
    """

    site: str
    hub: str
    channel: str

    @property
    def base(self) -> str:
        """What all its keys begin with."""
        return f"{ROOT}/{self.site}/{self.hub}/{self.channel}"

    @property
    def data(self) -> str:
        """Key of its slots."""
        return f"{self.base}/data"

    @property
    def offer(self) -> str:
        """Key of the question what it is."""
        return f"{self.base}/offer"

    @property
    def clock(self) -> str:
        """Key of the question what time it is there."""
        return f"{ROOT}/{self.site}/{self.hub}/clock"

    def token(self, run: str) -> str:
        """Key of the liveliness token of one run of its export."""
        return f"{self.base}/alive/{run}"

    def imported(self, by: str) -> str:
        """Key of the liveliness token of its import by a hub."""
        return f"{self.base}/imported/{by}"

    def __str__(self) -> str:
        return f"{self.site}/{self.channel}"


def parse_token(key: str) -> tuple[Address, str] | None:
    """Read the key of a liveliness token: whose it is, and of which run; None if it is none."""
    match key.split("/"):
        case [root, site, hub, channel, "alive", run] if (
            root == ROOT and NAME.fullmatch(site) and NAME.fullmatch(channel)
        ):
            return Address(site, hub, channel), run
    return None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What an exporting bridge says of a channel.

    Attributes
    ----------
    version : int
        Of this protocol.
    run : str
        Of its export; another one after a restart of the bridge.
    instance : str
        Instance id of the segment there.
    schema : str
        Canonical JSON.
    capacity : int
        Slots of the ring.
    lossless : bool
        Whether its slots wait for the network, and lossless readers may attach at the other end.
    checksum_policy : str
        Name on the wire.
    epoch : int
        Of the producer there.
    resume : int
        Seq of the slot that is sent next.
    generation : int
        Rises each time that slots are sent again; older messages that are still on their way do not count.
    path : tuple of str
        Identities of the hubs that it has come through, its origin first.
    host, boot_id : str
        The machine of its origin.
    """

    version: int
    run: str
    instance: str
    schema: str
    capacity: int
    lossless: bool
    checksum_policy: str
    epoch: int
    resume: int
    generation: int
    path: tuple[str, ...]
    host: str
    boot_id: str


def decode_offer(data: bytes) -> Offer:
    """Read an offer.

    Raises
    ------
    ProtocolError
        It is none, or one of another version of labhub.
    """
    try:
        offer = msgspec.json.decode(data, type=Offer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"this offer of a channel cannot be read: {error}") from None
    if offer.version != VERSION:
        raise ProtocolError(
            f"the other bridge speaks version {offer.version} of the protocol, this one {VERSION}; use the same labhub"
        )
    return offer


# version, flags, count, epoch, generation, run, instance id, seq behind the message before, seq of the first slot
_HEAD = struct.Struct("<HHIIQ8s16sQQ")
_PARTIAL, _SEALED, _END = 1, 2, 4


@dataclass(frozen=True)
class Message:
    """Slots that follow each other, as they travel; or the end of a stream, behind its last slot.

    Attributes
    ----------
    instance : bytes
        16 bytes that name the incarnation of the segment.
    first_seq : int
    epoch : int
    headers : ndarray of shape (n_slots,)
        Of dtype `SLOT_HEADER`; empty for the end.
    payload : bytes-like
        The slots, one after the other; of a message to be sent, what Zenoh takes.
    slot_nbytes : int
        Bytes of each of them.
    end : bool
    """

    instance: bytes
    first_seq: int
    epoch: int
    headers: NDArray[np.void]
    payload: Any = b""
    slot_nbytes: int = 0
    end: bool = False

    @classmethod
    def of(cls, batch: Batch, instance: bytes, slot_nbytes: int) -> Self:
        """Take the slots of a batch."""
        return cls(instance, int(batch.seq[0]), batch.epoch, batch.headers, batch.data.tobytes(), slot_nbytes)

    @classmethod
    def the_end(cls, instance: bytes, seq: int, epoch: int) -> Self:
        """Say that no slot will come any more, from that seq on."""
        return cls(instance, seq, epoch, np.zeros(0, SLOT_HEADER), end=True)

    @property
    def next_seq(self) -> int:
        """Seq of the slot behind the last one."""
        return self.first_seq + len(self.headers)

    @property
    def nbytes(self) -> int:
        """Memory that it takes, or little less (in bytes)."""
        return len(self.payload) + self.headers.nbytes + _HEAD.size

    def attachment(self, run: str, generation: int, follows: int) -> bytes:
        """Return what travels beside the payload; what all slots have in common is left out."""
        headers = self.headers
        partial = bool((headers["nbytes"] != self.slot_nbytes).any())
        sealed = bool((headers["flags"] & 1).any())
        flags = _PARTIAL * partial | _SEALED * sealed | _END * self.end
        who = (generation, bytes.fromhex(run), self.instance)
        head = _HEAD.pack(VERSION, flags, len(headers), self.epoch, *who, follows, self.first_seq)
        parts = [head, headers["timestamp_ns"].tobytes()]
        if partial:
            parts.append(headers["nbytes"].tobytes())
        if sealed:
            parts += [headers["flags"].tobytes(), headers["checksum"].tobytes()]
        return b"".join(parts)


class Received(NamedTuple):
    """A message as it arrived, with the run and generation that it was sent in.

    `follows` is the seq behind the message that was sent before it: what is missing between the two was given up by the
    other side; what is missing before that was lost on the way.
    """

    run: str
    generation: int
    follows: int
    message: Message


def decode(attachment: bytes, payload: bytes, slot_nbytes: int | None) -> Received:
    """Read a message; its slots are of `slot_nbytes` bytes (None: not known yet, and not looked at).

    Raises
    ------
    ProtocolError
        It is none, it is one of another version, or its parts do not fit each other.
    """
    try:
        version, flags, n, epoch, generation, run, instance, follows, first = _HEAD.unpack_from(attachment)
        if version != VERSION:
            raise ProtocolError(f"a message of version {version}, and not {VERSION}")
        headers = np.zeros(n if slot_nbytes is not None else 0, SLOT_HEADER)
        if slot_nbytes is not None:
            _fill(headers, attachment, flags, first, epoch, slot_nbytes)
            if len(payload) != n * slot_nbytes or (headers["nbytes"] > slot_nbytes).any():
                raise ProtocolError(f"{len(payload)} bytes are not {n} slots of {slot_nbytes}")
    except (struct.error, ValueError, MemoryError) as error:
        if isinstance(error, LabHubError):
            raise
        raise ProtocolError(f"this message cannot be read: {error}") from None
    message = Message(instance, first, epoch, headers, payload, slot_nbytes or 0, bool(flags & _END))
    return Received(run.hex(), generation, follows, message)


def _fill(headers: NDArray[Any], attachment: bytes, flags: int, first: int, epoch: int, slot_nbytes: int) -> None:
    n, at = len(headers), _HEAD.size

    def column(dtype: str) -> NDArray[Any]:
        nonlocal at
        values = np.frombuffer(attachment, dtype, n, at)
        at += values.nbytes
        return values

    headers["seq"] = np.arange(first, first + n, dtype=np.uint64)
    headers["timestamp_ns"] = column("<i8")
    headers["nbytes"] = column("<u8") if flags & _PARTIAL else slot_nbytes
    headers["epoch"] = epoch
    if flags & _SEALED:
        headers["flags"] = column("<u4") & 1
        headers["checksum"] = column("V32")
    if at != len(attachment):
        raise ProtocolError(f"an attachment of {len(attachment)} bytes instead of {at}")
