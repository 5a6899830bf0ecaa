"""What bridges tell each other: keys, offers of channels, and slots. No I/O."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from labhub.datablock.batch import SLOT_HEADER, Batch
from labhub.datablock.config import ChecksumPolicy
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
MAX_SLOTS = 1 << 32
"""Most slots of a ring."""
MAX_SEQ = 1 << 62
"""Seqs of slots are smaller."""
MAX_MESSAGE_NBYTES = 64 << 20
"""Several slots in one message are smaller (in bytes); one alone may be larger."""
MAX_MESSAGE_SLOTS = 1 << 21
"""Most slots of one message: an export sends a megabyte at once, half as many of the smallest slots."""
MAX_OFFER_NBYTES = 256 * 1024
"""An offer is smaller (in bytes): most of it is a schema, which the frame of a broker has carried before."""
MAX_REFUSAL_NBYTES = 1024
"""As much is read of the words of a refusal (in bytes)."""
MAX_WORDS = 255
"""Most characters of a host's name, or of another short text."""
MAX_PATH = 64
"""Most hubs that a channel may have come through."""


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
        case [root, site, hub, channel, "alive", run] if root == ROOT and all(
            map(NAME.fullmatch, (site, hub, channel, run))
        ):
            return Address(site, hub, channel), run
    return None


def parse_place(instance: str, seq: str) -> tuple[bytes, int]:
    """Read where the asking side is: the incarnation that it has, or none yet, and the slot that it needs next.

    Raises
    ------
    ProtocolError
        It is nowhere.
    """
    if (instance and not _is_hex(instance, 16)) or not re.fullmatch("[0-9]{1,20}", seq):
        raise ProtocolError(f"a question for slot {_short(seq[:100])} of instance {_short(instance[:100])}")
    return bytes.fromhex(instance), int(seq)


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
        It is none, one of another version of labhub, or one of its fields is out of bounds.
    """
    if len(data) > MAX_OFFER_NBYTES:
        raise ProtocolError(f"an offer of {len(data)} bytes; this labhub reads at most {MAX_OFFER_NBYTES}")
    try:
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise ProtocolError(_other_version("an offer", version))
        offer = msgspec.json.decode(data, type=Offer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"this offer of a channel cannot be read: {str(error)[:MAX_WORDS]}") from None
    for name, good in _CHECKS.items():
        if not good(value := getattr(offer, name)):
            raise ProtocolError(f"this offer of a channel makes no sense: {name} {_short(value)}")
    return offer


def policy_of(offer: Offer) -> ChecksumPolicy:
    """Return the policy for checksums that an offer names.

    Raises
    ------
    ProtocolError
        This labhub has no such policy; a newer one may have.
    """
    for policy in ChecksumPolicy:
        if policy.wire == offer.checksum_policy:
            return policy
    known = ", ".join(policy.wire for policy in ChecksumPolicy)
    raise ProtocolError(
        f"the channel has checksum_policy {_short(offer.checksum_policy)}, and this labhub knows {known}; "
        "if the labhub of the other machine is newer, update the one here"
    )


class _Versioned(msgspec.Struct):
    """What every version of an offer has."""

    version: int


def _is_hex(text: str, nbytes: int) -> bool:
    return re.fullmatch(rf"[0-9a-f]{{{2 * nbytes}}}", text, re.ASCII) is not None


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "run": lambda run: _is_hex(run, 8),
    "instance": lambda instance: _is_hex(instance, 16),
    "capacity": lambda capacity: 0 < capacity <= MAX_SLOTS,
    "epoch": lambda epoch: 0 <= epoch < 1 << 32,
    "resume": lambda seq: 0 <= seq < MAX_SEQ,
    "generation": lambda generation: 0 <= generation < 1 << 64,
    "path": lambda path: len(path) <= MAX_PATH and all(len(hub) <= MAX_WORDS for hub in path),
    "host": lambda host: len(host) <= MAX_WORDS,
    "boot_id": lambda boot_id: len(boot_id) <= MAX_WORDS,
}


def _short(value: object) -> str:
    """Return the repr of a value that somebody else has chosen, or its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _other_version(what: str, version: object) -> str:
    whose = "here" if isinstance(version, int) and version > VERSION else "of the other machine"
    spoken = f"{what} of version {_short(version)} of the protocol between bridges"
    return f"{spoken}, and this labhub speaks {VERSION}; update the labhub {whose}"


# version, flags, count, epoch, generation, run, instance id, seq behind the message before, seq of the first slot
_HEAD = struct.Struct("<HHIIQ8s16sQQ")
_PARTIAL, _SEALED, _END = 1, 2, 4
_TIME_NBYTES, _PARTIAL_NBYTES, _SEALED_NBYTES = 8, 8, 4 + 32
"""What each slot adds to an attachment: its time and, with these flags, its length, and its flags and checksum."""
_MOST_EACH = _TIME_NBYTES + _PARTIAL_NBYTES + _SEALED_NBYTES


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


def decode(attachment: Any, payload: Any, slot_nbytes: int | None) -> Received:
    """Read a message; its slots are of `slot_nbytes` bytes (None: not known yet, and not looked at).

    What the head announces is compared with what there is before memory is taken for it, and before parts that Zenoh
    holds become bytes.

    Parameters
    ----------
    attachment, payload : bytes or zenoh.ZBytes
    slot_nbytes : int or None

    Raises
    ------
    ProtocolError
        It is none, it is one of another version, or its parts do not fit each other.
    """
    try:
        if len(attachment) > _HEAD.size + MAX_MESSAGE_SLOTS * _MOST_EACH:
            raise ProtocolError(f"an attachment of {len(attachment)} bytes")
        attachment = bytes(attachment)
        version, flags, n, epoch, generation, run, instance, follows, first = _HEAD.unpack_from(attachment)
        if version != VERSION:
            raise ProtocolError(_other_version("a message", version))
        _check_lengths(flags, n, first, len(attachment), None if slot_nbytes is None else len(payload), slot_nbytes)
        headers = np.zeros(n if slot_nbytes is not None else 0, SLOT_HEADER)
        payload = bytes(payload) if slot_nbytes is not None else b""
        if slot_nbytes is not None:
            _fill(headers, attachment, flags, first, epoch, slot_nbytes)
            if (headers["nbytes"] > slot_nbytes).any():
                raise ProtocolError(f"a slot of {headers['nbytes'].max()} bytes, where {slot_nbytes} are the most")
    except (struct.error, ValueError, MemoryError) as error:
        if isinstance(error, LabHubError):
            raise
        raise ProtocolError(f"this message cannot be read: {error}") from None
    message = Message(instance, first, epoch, headers, payload, slot_nbytes or 0, bool(flags & _END))
    return Received(run.hex(), generation, follows, message)


def _check_lengths(flags: int, n: int, first: int, beside: int, nbytes: int | None, slot_nbytes: int | None) -> None:
    """Compare what a head announces with the bytes beside it, with those of the slots, and with what there can be."""
    each = _TIME_NBYTES + _PARTIAL_NBYTES * bool(flags & _PARTIAL) + _SEALED_NBYTES * bool(flags & _SEALED)
    if beside != _HEAD.size + n * each:
        raise ProtocolError(f"an attachment of {beside} bytes instead of {_HEAD.size + n * each}, for {n} slots")
    if first + n > MAX_SEQ:
        raise ProtocolError(f"{n} slots from seq {first} on")
    if slot_nbytes is None:
        return
    if nbytes != n * slot_nbytes:
        raise ProtocolError(f"{nbytes} bytes are not {n} slots of {slot_nbytes}")
    if n > MAX_MESSAGE_SLOTS or (n > 1 and nbytes > MAX_MESSAGE_NBYTES):
        raise ProtocolError(f"{n} slots of {slot_nbytes} bytes in one message, which is more than any labhub sends")


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
