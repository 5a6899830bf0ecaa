"""Which client key may do what with which channels. No I/O: rules and names go in, verdicts come out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated

import msgspec

from labhub.errors import ProtocolError
from labhub.names import NAME
from labhub.protocol.messages import RIGHT_FOR, ErrorCode, ListReq, Message, MetricsReq, Pattern, Right, WatchReq

EVERY = "*"
"""Names every channel, and with it the broker itself; in the rules, also every key that has none of its own."""
BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
"""What needs no quotes as a key of TOML."""

Patterns = Annotated[list[Pattern], msgspec.Meta(max_length=1000)]


class Grants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one key may do: for each right, shell patterns of channel names as in `ListReq`.

    Attributes
    ----------
    produce, consume, administer : list of str
        Patterns; none means that it has the right for no channel.
    """

    produce: Patterns = []
    consume: Patterns = []
    administer: Patterns = []

    def gives(self, right: Right, channel: str) -> bool:
        """Whether it has a right for a channel; `EVERY` is the broker itself, which only that very pattern means."""
        patterns: list[str] = getattr(self, right)
        return EVERY in patterns or (channel != EVERY and any(fnmatchcase(channel, p) for p in patterns))


Rules = Mapping[str, Grants]
"""By the name of a key, or by the public key itself, or by `EVERY`."""


class Access:
    """The rules of one broker, and whose keys they are about.

    A key has what stands under its name, else under the public key, else under `EVERY`; where nothing does, everything,
    so that a broker without rules refuses nobody whom it lets in.

    Parameters
    ----------
    owner : str
        Public key (z85) of the broker's own user, who may do everything.
    name_of : callable
        Returns the name under which a key is enrolled; empty if it has none. Asked each time.

    Attributes
    ----------
    rules : mapping of str to Grants
        To be replaced as a whole.
    """

    def __init__(self, owner: str = "", name_of: Callable[[str], str] = lambda _: "") -> None:
        self._owner = owner
        self._name_of = name_of
        self.rules: Rules = {}

    def may(self, key: str, right: Right, channel: str) -> bool:
        """Whether a client key has a right for a channel."""
        return self.allows(key, right)(channel)

    def allows(self, key: str, right: Right) -> Callable[[str], bool]:
        """Return what tells for which channels a client key has a right now; for many channels at once."""
        grants = self._grants(key)
        return (lambda _: True) if grants is None else partial(grants.gives, right)

    def require(self, key: str, request: Message) -> None:
        """Raise unless a client key may make a request.

        Raises
        ------
        ProtocolError
            With the code ``ACCESS_DENIED``; the message says which right is missing, and what would give it.
        """
        right, channel = RIGHT_FOR.get(type(request)), _subject(request)
        if right is None or channel is None or self.may(key, right, channel):
            return
        name = self._name_of(key) or key
        table, line = self._grant(key, name, right, channel)
        about = "the broker itself" if channel == EVERY else f"channel '{channel}'"
        raise ProtocolError(
            f"the key {name} may not {right} {about}; the line {line} under {table} in the broker's settings allows it",
            code=ErrorCode.ACCESS_DENIED.value,
            details={"key": name, "channel": channel, "right": right.value, "grant": f"{table}\n{line}"},
        )

    def _grants(self, key: str) -> Grants | None:
        if not self.rules or key == self._owner:
            return None
        for name in (self._name_of(key), key, EVERY):
            if name and name in self.rules:
                return self.rules[name]
        return None

    def _grant(self, key: str, name: str, right: Right, channel: str) -> tuple[str, str]:
        """The TOML that would give a right: the header of the key's own table, and the line in it."""
        own = key if key in self.rules and name not in self.rules else name
        grants = self._grants(key)
        patterns = [*(getattr(grants, right) if grants else ()), channel]
        return f"[access.{own if BARE.fullmatch(own) else json.dumps(own)}]", f"{right} = {json.dumps(patterns)}"


def _subject(request: Message) -> str | None:
    """The one channel that a request is about, `EVERY` for the broker itself; None for a list, which tells what it may.

    Whose pattern is a name asks for that channel.
    """
    match request:
        case MetricsReq(channel_name=None):
            return EVERY
        case ListReq() | WatchReq():
            return request.pattern if NAME.fullmatch(request.pattern) else None
    name: str | None = getattr(request, "channel_name", None)
    return name
