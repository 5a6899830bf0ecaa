"""What may name a channel, a segment or a broker. It becomes a file name, so the rule is strict."""

from __future__ import annotations

import re
import shlex

from labhub.errors import InvalidName
from labhub.telling import Advice
from labhub.words import quoted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
WILDCARDS = frozenset("*?[")
"""What a shell pattern has, and a name cannot have."""


def check_name(name: object, what: str = "channel") -> str:
    """Return `name` if it can name a channel, a segment or a broker.

    Raises
    ------
    InvalidName
        Otherwise.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidName(
            f"{quoted(name)} cannot name a {what}: use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or a "
            "digit",
            name=name,
        )
    return name


def check_one(name: object) -> str:
    """Return `name` if it can name one channel that is looked for.

    Raises
    ------
    InvalidName
        Otherwise. A pattern is told where patterns work.
    """
    if not isinstance(name, str) or not WILDCARDS.intersection(name):
        return check_name(name)
    raise InvalidName(
        f"{quoted(name)} is a pattern, and here one channel is needed",
        advice=Advice(
            f"; hub.channels({quoted(name)}) lists those that match, and hub.watch, hub.record, labhub.HubBrowser, "
            "labhub.replay and labhub.bridge take patterns, too",
            shell=f"; `labhub channels {shlex.quote(name)}` lists those that match, and top, record, replay and bridge "
            "take patterns, too",
            notebook=f"; %hub_discover {name} lists those that match, and %hub_record and %hub_replay take patterns, "
            "too",
        ),
        name=name,
    )
