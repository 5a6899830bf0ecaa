"""Magics for notebooks and IPython: ``%load_ext labhub``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labhub.errors import LabHubError
from labhub.hub import Hub, connect, running_broker, start_broker, stop_broker
from labhub.notebook.display import BrokerStatus, ChannelTable
from labhub.runtime import ConnectionFile

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

P = ParamSpec("P")
T = TypeVar("T")

ACTIONS = ("start", "stop", "status")


def one_line_errors(
    method: Callable[Concatenate[LabHubMagics, P], T],
) -> Callable[Concatenate[LabHubMagics, P], T]:
    """Turn labhub's errors, which say what to do, into one line without a traceback."""

    @functools.wraps(method)
    def wrapped(self: LabHubMagics, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except LabHubError as error:
            raise UsageError(str(error)) from None

    return wrapped


@magics_class
class LabHubMagics(Magics):
    """The magics of labhub; each is a parse, one public call and a display."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._hubs: dict[str, Hub] = {}

    @magic_arguments()
    @argument(
        "action", nargs="?", default="status", metavar="start|stop|status", help="what to do; status unless given"
    )
    @argument("--name", default="default", help="name of the broker")
    @line_magic
    @one_line_errors
    def hub_broker(self, line: str) -> BrokerStatus:
        """Start, stop or show the broker of this machine.

        It is a process of its own and outlives the kernel. Starting it twice is harmless.

        Examples
        --------
        ``%hub_broker start``
        """
        options = parse_argstring(self.hub_broker, line)
        match options.action:
            case "start":
                return self._status(start_broker(options.name))
            case "stop":
                return BrokerStatus.stopped(stop_broker(options.name).name)
            case "status":
                return self._status(running_broker(options.name))
        raise UsageError(f"%hub_broker {options.action}: choose one of {', '.join(ACTIONS)}")

    @magic_arguments()
    @argument("pattern", nargs="?", default="*", help="shell pattern of channel names; all unless given")
    @argument("--wait", type=float, default=0.0, metavar="S", help="wait up to S seconds until there is one")
    @argument("--name", default="default", help="name of the broker")
    @line_magic
    @one_line_errors
    def hub_discover(self, line: str) -> ChannelTable:
        """List the channels that the broker knows.

        Examples
        --------
        ``%hub_discover pump.* --wait 5``, or ``channels = %hub_discover``
        """
        options = parse_argstring(self.hub_discover, line)
        if options.wait < 0:
            raise UsageError(f"%hub_discover --wait takes seconds, not {options.wait:g}")
        return ChannelTable.wait(self._hub(options.name), options.pattern, options.wait)

    def _status(self, found: ConnectionFile) -> BrokerStatus:
        return BrokerStatus.of(found, self._hub(found.name))

    def _hub(self, name: str) -> Hub:
        """Return the open hub of that name, or open one."""
        self._hubs[name] = connect(name)
        return self._hubs[name]

    def close(self) -> None:
        """Close the hubs that the magics used, unless the user writes or reads through one."""
        for hub in self._hubs.values():
            if hub.idle:
                hub.close()
        self._hubs.clear()


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add the magics. Loading twice is harmless: IPython does not call it again."""
    magics = LabHubMagics(shell)
    shell.register_magics(magics)
    _loaded[id(shell)] = magics


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics and close what they opened. A broker process goes on: others may be using it."""
    magics = _loaded.pop(id(shell), None)
    if magics is None:
        return
    stop_widgets()
    magics.close()
    for name in ("hub_broker", "hub_discover"):
        shell.magics_manager.magics["line"].pop(name, None)


def stop_widgets() -> None:
    """Stop the widgets' threads and readers, if there are any; what they show stays."""
    if "labhub.notebook.live" in sys.modules:
        from labhub.notebook.live import stop_all

        stop_all()


_loaded: dict[int, LabHubMagics] = {}
