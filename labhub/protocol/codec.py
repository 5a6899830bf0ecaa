"""Between frames and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from labhub.errors import ProtocolError
from labhub.protocol.messages import TYPE_NAME, Correlation, ErrorCode, Message

M = TypeVar("M", bound=Message)

MARK = b"C"
"""The published C++ code sends this one-byte frame before the type; whoever sends it is answered with it."""

_MESSAGE_OF = {name: kind for kind, name in TYPE_NAME.items()}
_DECODER = {kind: msgspec.json.Decoder(kind) for kind in TYPE_NAME}
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class Envelope:
    """A message as it came: its type, its undecoded body, and whether the mark stood before them."""

    type_name: str
    body: bytes
    marked: bool = False


def split(frames: Sequence[bytes]) -> Envelope:
    """Take the frames of one message apart: ``[type, json]`` or ``[b"C", type, json]``.

    Raises
    ------
    ProtocolError
        If they are something else; its attribute `marked` says how to answer.
    """
    marked = len(frames) == 3 and frames[0] == MARK
    if len(frames) != 2 and not marked:
        raise ProtocolError(f"a message has the frames [type, json], this one has {len(frames)}", marked=False)
    type_frame, body = frames[-2:]
    try:
        type_name = type_frame.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("the type of a message is ASCII text", marked=marked) from None
    if type_name not in _MESSAGE_OF:
        shown = repr(type_name[:40])
        raise ProtocolError(f"{shown} is not the type of a message", marked=marked)
    return Envelope(type_name, body, marked)


def decode(envelope: Envelope) -> Message:
    """Decode the body of a message.

    Raises
    ------
    ProtocolError
        If it is not the JSON of such a message.
    """
    kind = _MESSAGE_OF[envelope.type_name]
    try:
        return _DECODER[kind].decode(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProtocolError(f"{envelope.type_name}: {why}", code=ErrorCode.INVALID_REQUEST.value) from None


def correlation_of(envelope: Envelope) -> str | None:
    """Return the correlation id of a message whose body may not be decodable otherwise."""
    try:
        return msgspec.json.decode(envelope.body, type=_OnlyCorrelation).correlation_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
        return None


class _OnlyCorrelation(msgspec.Struct):
    correlation_id: Correlation | None = None  # a longer one could not be read in the reply


def encode(message: Message, *, marked: bool = False) -> list[bytes]:
    """Return the frames of a message.

    Raises
    ------
    ProtocolError
        If it holds what JSON cannot say.
    """
    name = TYPE_NAME[type(message)].encode()
    try:
        body = _ENCODER.encode(message)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, UnicodeEncodeError, OverflowError) as error:
        raise ProtocolError(f"{name.decode()} cannot be sent as JSON: {error}") from None
    return [MARK, name, body] if marked else [name, body]
