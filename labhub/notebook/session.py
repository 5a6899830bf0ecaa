"""What the magics of one shell have started: hubs, a broker in this kernel, background producers."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from labhub.errors import LabHubError, RecordingError
from labhub.hub import Hub, connect, named_broker, running_broker, start_broker, stop_broker
from labhub.notebook.steps import Steps
from labhub.runtime import ConnectionFile, find_live

if TYPE_CHECKING:
    from labhub.notebook.background import BackgroundProducers
    from labhub.recording import Recording
    from labhub.replaying import Replay

logger = logging.getLogger(__name__)


class Session:
    """Everything that unloading the extension ends. Made once for each shell.

    Attributes
    ----------
    recording, replay : Recording, Replay or None
        The last ones that were begun.
    steps : Steps
        In which it is changed.
    """

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self.replay: Replay | None = None
        self.steps = Steps()
        self._hubs: dict[str, Hub] = {}
        self._brokers: dict[str, contextlib.ExitStack] = {}
        self._producers: BackgroundProducers | None = None
        self._pid = os.getpid()

    @property
    def producers(self) -> BackgroundProducers:
        """The background producers; jupyter_client is imported with the first one."""
        if self._producers is None:
            from labhub.notebook.background import BackgroundProducers

            self._producers = BackgroundProducers()
        return self._producers

    def hub(self, name: str, start: bool = False, endpoint: str | None = None, public_key: str | None = None) -> Hub:
        """Return the open hub of that name, or open one; the parameters are those of `labhub.connect`.

        Raises
        ------
        BrokerUnreachable
            No broker of that name runs; the message names the magic that starts one.
        """
        if not start and endpoint is None:
            self.running(name)

        def step() -> Hub:
            self._hubs[name] = connect(name, start, endpoint, public_key)
            return self._hubs[name]

        return self.steps(step)

    def running(self, name: str) -> ConnectionFile:
        """Where the broker of that name is; else as `hub`."""
        return running_broker(name)

    def start_broker(self, name: str, endpoint: str | None, here: bool) -> ConnectionFile:
        """Start a broker, in this kernel or as a process of its own, unless it runs.

        Raises
        ------
        LabHubError
            It runs, but not where it is wanted.
        BrokerUnreachable
            It did not start.
        """
        running = find_live(name)
        if running is None and here:
            with contextlib.ExitStack() as stack:
                stack.enter_context(named_broker(name, endpoint)).start()
                self._brokers[name] = stack.pop_all()
            return running_broker(name)
        if running is None:
            return start_broker(name, endpoint)
        if here and running.pid != os.getpid():
            raise LabHubError(
                f"the broker {name!r} runs already, as pid {running.pid}; %hub_broker restart --here moves it"
            )
        if endpoint not in (None, running.endpoint) and not str(endpoint).endswith(":0"):
            raise LabHubError(
                f"the broker {name!r} runs already, at {running.endpoint}; "
                f"%hub_broker restart --endpoint {endpoint} moves it"
            )
        return running

    def stop_broker(self, name: str) -> ConnectionFile:
        """Stop a broker, wherever it runs. Live channels do not keep it.

        Raises
        ------
        LabHubError
            It runs inside another program, or was started in this kernel by something else than the magic.
        """
        running = self.running(name)
        if (here := self._brokers.pop(name, None)) is not None:
            here.close()
            return running
        return stop_broker(name)

    def restart_broker(self, name: str, endpoint: str | None, here: bool) -> ConnectionFile:
        """Stop a broker if it runs, and start it again, at the same endpoint unless another is given."""
        running = find_live(name)
        if running is not None:
            here = here or name in self._brokers
            self.stop_broker(name)
            endpoint = endpoint or running.endpoint
        return self.start_broker(name, endpoint, here)

    def close(self) -> None:
        """End everything; but not a hub that somebody writes or reads through."""
        if os.getpid() != self._pid:
            return  # a forked child: all of it is its parent's
        self.steps(self._close)
        self.steps.close()

    def _close(self) -> None:
        with contextlib.ExitStack() as stack:
            for broker in self._brokers.values():
                stack.callback(broker.close)
            stack.callback(self._close_idle_hubs)
            if self._producers is not None:
                stack.callback(self._producers.close)
            if self.replay is not None:
                stack.callback(self.replay.stop)
            stack.callback(self._stop_recording)
        self._brokers.clear()
        self._hubs.clear()

    def _close_idle_hubs(self) -> None:
        for hub in self._hubs.values():
            if hub.idle:
                hub.close()

    def _stop_recording(self) -> None:
        if self.recording is None:
            return
        try:
            self.recording.stop()
        except RecordingError as error:  # unloading goes on; the store has what was committed
            logger.warning("%s", error)
