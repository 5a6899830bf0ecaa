"""What the imports of a bridge have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import zenoh

from labhub.bridging.clocks import Clocks
from labhub.bridging.crew import Crew
from labhub.bridging.inbox import Questions
from labhub.bridging.room import Room
from labhub.bridging.wire import Address
from labhub.hub import Hub


class Shared(NamedTuple):
    """What the imports of a bridge have in common.

    Attributes
    ----------
    hub : Hub
        Where they appear.
    session : zenoh.Session
    identity : str
        Of this hub: what has come through it once is not taken again.
    clocks : Clocks
    claim : callable
        Takes the name of the channel for an address, or raises `ExportConflict`.
    room : Room
        For their rings.
    questions : Questions
    crew, lookers : Crew
        Threads that take slots and news, and those that look at clocks, for which they wait.
    """

    hub: Hub
    session: zenoh.Session
    identity: str
    clocks: Clocks
    claim: Callable[[Address], None]
    room: Room
    questions: Questions
    crew: Crew
    lookers: Crew
