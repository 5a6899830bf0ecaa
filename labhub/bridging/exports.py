"""Channels of this machine, offered to others: which ones, as they come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase

import zenoh

from labhub.bridging.export import DRAIN, LEAVE, Export, waits
from labhub.bridging.status import ExportStatus
from labhub.bridging.wire import Address
from labhub.errors import ClosedError, ForkedProcessError, TimeoutExpired
from labhub.hub import Hub
from labhub.hub.channels import ChannelInfo
from labhub.hub.roster import ChannelEvent
from labhub.hub.watching import Watch
from labhub.tasks import Task, contained, report, words

RETRY = 1.0
"""How often an export that could not be made is tried again (in seconds)."""


class Exports:
    """The exports of a bridge: one for each channel that matches, now or later.

    Parameters
    ----------
    hub : Hub
    session : zenoh.Session
    site, identity : str
        What this machine is called, and what its hub is.
    patterns : sequence of str
        Shell patterns of channels.
    reexport : bool
        Whether imported channels are offered, too.
    buffer_nbytes : int
        As in `Export`.
    """

    def __init__(
        self,
        hub: Hub,
        session: zenoh.Session,
        site: str,
        identity: str,
        patterns: Sequence[str],
        *,
        reexport: bool,
        buffer_nbytes: int,
    ) -> None:
        self._hub = hub
        self._session = session
        self._site = site
        self._identity = identity
        self._patterns = patterns
        self._reexport = reexport
        self._buffer_nbytes = buffer_nbytes
        self._exports: dict[str, Export] = {}
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[ChannelInfo, str]] = {}  # why there is no export of a channel
        self._trouble = ""
        self._closing = threading.Event()
        self._watch = hub.watch(timeout=RETRY) if patterns else None
        self._thread = Task(self._follow, "exports")
        self._thread.start()

    def _follow(self) -> None:
        while self._watch is not None and (news := self._next(self._watch)) is not None:
            with self._lock:
                for event in news:
                    self._try(event.channel, event.info, event.kind)
                for channel, (info, _) in list(self._refused.items()):
                    self._try(channel, info, "")

    def _next(self, watch: Watch) -> list[ChannelEvent] | None:
        """What happened next, which may be nothing within `RETRY`; None at the end."""
        try:
            event = next(watch, None)
            self._trouble = ""
            return None if event is None else [event]
        except TimeoutExpired:
            self._trouble = ""
            return []
        except (ClosedError, ForkedProcessError):
            return None
        except Exception as error:  # noqa: BLE001  # the watch goes on where it was
            if self._trouble != words(error):
                report("item_failed", error, thread="exports", item="watch")
            self._trouble = words(error)
            self._closing.wait(RETRY)
            return []

    def _try(self, channel: str, info: ChannelInfo | None, kind: str) -> None:
        """Do what one event asks for; if that fails, the status says why, and it is tried again."""
        before = self._refused.pop(channel, None)
        try:
            self._happened(channel, info, kind)
        except Exception as error:  # noqa: BLE001  # around one channel: the others go on
            if before is None or before[1] != words(error):
                report("item_failed", error, thread="exports", item=channel)
            if info is not None:
                self._refused[channel] = info, words(error)

    def _happened(self, channel: str, info: ChannelInfo | None, kind: str) -> None:
        export = self._exports.get(channel)
        if kind == "gone" and export is not None:
            export.disappeared()
        elif info is not None and self._is_ours(info):
            if export is not None and export.lossless == waits(info):
                export.appeared()
                return
            if export is not None:
                export.close()
                del self._exports[channel]
            self._exports[channel] = self._new(info)

    def _is_ours(self, info: ChannelInfo) -> bool:
        return (self._reexport or info.origin is None) and any(fnmatchcase(info.name, p) for p in self._patterns)

    def _new(self, info: ChannelInfo) -> Export:
        address = Address(self._site, self._identity, info.name)
        return Export(self._hub, self._session, address, info, self._buffer_nbytes)

    @property
    def status(self) -> tuple[ExportStatus, ...]:
        """How each of them does, in the order of their names."""
        with self._lock:
            found = {channel: export.status for channel, export in self._exports.items()}
            found |= {channel: ExportStatus(channel, why) for channel, (_, why) in self._refused.items()}
        return tuple(status for _, status in sorted(found.items()))

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with all of them."""
        error = self._thread.error
        why = self._trouble if error is None else words(error)
        return (f"exports: {why}",) if why else ()

    def close(self) -> None:
        """Send what is there, but not for long, and withdraw all of them."""
        self._closing.set()
        if self._watch is not None:
            self._watch.close()
        self._thread.wait(5.0)
        deadline = time.monotonic() + DRAIN
        with self._lock:
            for channel, export in self._exports.items():
                with contained("exports", channel):
                    export.drain(deadline)
            deadline = time.monotonic() + LEAVE
            for channel, export in self._exports.items():
                with contained("exports", channel):
                    export.close(max(0.0, deadline - time.monotonic()))
