"""Channels of other machines, brought to this one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase

import zenoh

from labhub.bridging import wire
from labhub.bridging.clocks import Clocks
from labhub.bridging.crew import Crew
from labhub.bridging.inbox import Questions
from labhub.bridging.incoming import MAX_RUNS, RETRY, Import
from labhub.bridging.room import Room
from labhub.bridging.shared import Shared
from labhub.bridging.status import ImportStatus
from labhub.bridging.wire import Address
from labhub.datablock.location import segment_directory
from labhub.errors import ExportConflict
from labhub.hub import Hub
from labhub.logs import event, get_logger
from labhub.tasks import Task, contained, words

logger = get_logger(__name__)

CLOCK_INTERVAL, MUTE_INTERVAL = 60.0, 5.0
"""How often the clock of the other machine is looked at: it drifts; and how soon if it did not answer (in seconds)."""
THREADS, LOOKERS = 16, 2
"""Most threads that take slots, for all channels together, and that look at clocks."""
MAX_LEFT_OUT = 4096
"""Channels that are left out are known by name up to so many; the others are asked for anew when there is room."""

LIST_TIMEOUT = 2.0
"""How long it is waited for the names of all channels (in seconds)."""


class Imports:
    """The imports of a bridge: one for each channel of another site that matches, now or later.

    There are at most `max_channels`. Those that come then are left out, and shown as that, until another one is over.

    Parameters
    ----------
    hub : Hub
    session : zenoh.Session
    identity : str
        Of this hub.
    patterns : sequence of str
        ``"SITE/CHANNEL"`` each, as shell patterns.
    max_channels : int
    max_nbytes : int
        Most shared memory of all of them (in bytes).
    """

    def __init__(
        self,
        hub: Hub,
        session: zenoh.Session,
        identity: str,
        patterns: Sequence[str],
        *,
        max_channels: int,
        max_nbytes: int,
    ) -> None:
        self._session = session
        self._identity = identity
        self._patterns = [p if "/" in p else f"*/{p}" for p in patterns]
        self._max_channels = max_channels
        self._imports: dict[Address, Import] = {}
        self._left_out: dict[Address, set[str]] = {}  # and the runs of their exports, the first one first
        self._nameless = 0  # those of which not even the name is kept
        self._looks: dict[Address, float] = {}
        self._owners: dict[str, Address] = {}
        self._lock = threading.Lock()
        self._crews = Crew("imports", THREADS), Crew("clocks of imports", LOOKERS)
        room = Room(max_nbytes, segment_directory(hub.name))
        self._shared = Shared(hub, session, identity, Clocks(session), self._claim, room, Questions(), *self._crews)
        self._closing = threading.Event()
        self._ticker = Task(self._tick, "imports")
        self._subscriber: zenoh.Subscriber[None] | None = None
        if patterns:
            self._subscriber = session.liveliness().declare_subscriber(wire.EVERY_CHANNEL, self._token, history=True)
            self._ticker.start()

    # ---------------------------------------------------------------------------------------------------------- tokens

    def _token(self, sample: zenoh.Sample) -> None:
        with contained("imports", str(sample.key_expr)):  # a thread of Zenoh's: it would print what is raised
            self._told(sample)

    def _told(self, sample: zenoh.Sample) -> None:
        found = wire.parse_token(str(sample.key_expr))
        if found is None:
            return
        address, run = found
        if address.hub == self._identity or not any(fnmatchcase(str(address), p) for p in self._patterns):
            return
        with self._lock:
            if self._closing.is_set():
                return
            is_there = sample.kind == zenoh.SampleKind.PUT
            if address not in self._imports and is_there and not self._has_place():
                self._leave_out(address, run)
                return
            told = self._imports.get(address)
            if told is None and is_there:
                told = self._admit(address)
        if told is not None:
            told.tell("token" if is_there else "gone", run)
        else:
            self._forget(address, run)

    def _has_place(self) -> bool:
        return len(self._imports) < self._max_channels

    def _admit(self, address: Address) -> Import:
        made = self._imports[address] = Import(self._shared, address)
        return made

    def _leave_out(self, address: Address, run: str) -> None:
        if not (self._left_out or self._nameless):
            facts = event("imports_left_out", channel=str(address), max_channels=self._max_channels)
            why = f"max_channels={self._max_channels} are imported already"
            logger.warning("import of %s: left out, and those that come next: %s", address, why, extra=facts)
        if address in self._left_out or len(self._left_out) < MAX_LEFT_OUT:
            runs = self._left_out.setdefault(address, set())
            if len(runs) < MAX_RUNS:
                runs.add(run)
        else:
            self._nameless += 1

    def _forget(self, address: Address, run: str) -> None:
        with self._lock:
            runs = self._left_out.get(address)
            if runs is not None:
                runs.discard(run)
                if not runs:
                    del self._left_out[address]
            elif self._nameless:
                self._nameless -= 1

    # ----------------------------------------------------------------------------------------------------- now and then

    def _tick(self) -> None:
        """Let each import try again what failed, look at clocks, and let those in that were left out."""
        while not self._closing.wait(RETRY):
            with self._lock:
                imports = list(self._imports.items())
            for address, imported in imports:
                with contained("imports", str(address)):
                    imported.tick()
                    self._look(address, imported)
            with contained("imports", "left out"):
                self._let_in()

    def _look(self, address: Address, imported: Import) -> None:
        now = time.monotonic()
        if imported.state != "receiving":
            self._looks.pop(address, None)
            return
        known = imported.status.clock_offset_ns is not None
        last = self._looks.setdefault(address, now)
        if now - last >= (CLOCK_INTERVAL if known else MUTE_INTERVAL):
            self._looks[address] = now
            imported.look()

    def _let_in(self) -> None:
        """Give places that are free to those that were left out, in the order in which they came."""
        with self._lock:
            if not (self._left_out or self._nameless):
                return
            over = [address for address, imported in self._imports.items() if imported.is_over]
            gone = [self._imports.pop(address) for address in over]
            for address in over:
                self._looks.pop(address, None)
                if self._owners.get(address.channel) == address:
                    del self._owners[address.channel]
        for imported in gone:
            imported.close()
        with self._lock:
            told = []
            while self._left_out and self._has_place() and not self._closing.is_set():
                address = next(iter(self._left_out))
                runs = self._left_out.pop(address)
                told += [(self._admit(address), run) for run in runs]
            anew = bool(self._nameless) and self._has_place()
            if anew:
                self._nameless = 0
        for imported, run in told:
            imported.tell("token", run)
        if anew:
            for reply in self._session.liveliness().get(wire.EVERY_CHANNEL, timeout=LIST_TIMEOUT):
                if reply.ok is not None:
                    self._token(reply.ok)

    def _claim(self, address: Address) -> None:
        """Let one address have the name of its channel, and no other one, unless the first one is over."""
        with self._lock:
            owner = self._owners.setdefault(address.channel, address)
            holder = self._imports.get(owner)
            state = "ended" if holder is None else holder.state
            if owner != address and state == "ended":
                owner = self._owners[address.channel] = address
        if holder is not None and owner.site == address.site and owner != address and state == "cut":
            holder.tell("replaced")  # after a reboot it is another machine
        if owner != address:
            sites = (owner.site, address.site)
            raise ExportConflict(
                f"{address.channel!r} is exported by {' and '.join(map(repr, sites))}; that of {owner.site!r} came "
                f"first. Import one of them only, such as {str(owner)!r}, or rename the other",
                channel=address.channel,
                sites=sites,
            )

    # -------------------------------------------------------------------------------------------------------- its face

    @property
    def status(self) -> tuple[ImportStatus, ...]:
        """How each of them does, in the order of their names; those that are left out, too."""
        why = (
            f"{self._max_channels} channels are imported, which is what max_channels allows; it is taken when one ends"
        )
        with self._lock:
            imports = dict(self._imports)
            found = {a: ImportStatus(a.site, a.channel, "left out", why) for a in self._left_out}
        found |= {address: imported.status for address, imported in imports.items()}
        return tuple(status for _, status in sorted(found.items()))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with all of them."""
        if self._ticker.error is not None:
            return (f"imports: {words(self._ticker.error)}",)
        with self._lock:
            n = len(self._left_out) + self._nameless
        return (f"imports: {n} channels are left out: max_channels is {self._max_channels}",) if n else ()

    def close(self) -> None:
        """End all of them."""
        self._closing.set()
        if self._subscriber is not None:
            with contextlib.suppress(zenoh.ZError):
                self._subscriber.undeclare()
            self._ticker.wait(10.0)
        with self._lock:
            imports = list(self._imports.values())
        for imported in imports:
            imported.hush()  # the network waits for none of them any more, while one after the other is closed
        for imported in imports:
            with contained("imports", str(imported.address)):
                imported.close()
        for crew in self._crews:
            crew.close(10.0)
