"""``%hub_discover``, ``%hub_info``, ``%hub_tail`` and ``%hub_plot``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.magic import line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labhub.datablock.diagnostics import diagnose
from labhub.datablock.location import segment_directory
from labhub.errors import LabHubError
from labhub.notebook.display import ChannelTable
from labhub.notebook.display_channel import ChannelReport, Tail
from labhub.notebook.magics.common import SessionMagics, broker_name, one_line_errors
from labhub.notebook.rates import RateMeter

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from labhub.notebook.session import Session

LOOK_INTERVAL = 0.05
"""How often a waiting `%hub_discover` asks the broker (in seconds)."""


@magics_class
class ChannelMagics(SessionMagics):
    """The magics about channels; each is a parse, one call and a display."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell, session)
        self._meters: dict[str, RateMeter] = {}

    @magic_arguments()
    @argument("pattern", nargs="?", default="*", help="shell pattern of channel names; all unless given")
    @argument("--wait", type=float, default=0.0, metavar="S", help="wait up to S seconds until there is one")
    @broker_name()
    @line_magic
    @one_line_errors
    def hub_discover(self, line: str) -> ChannelTable:
        """List the channels that the broker knows: what is in a slot, how fast it comes, who writes and who reads.

        The rate is measured, in slots per second: since the last %hub_discover, or else since the channel's start.

        Examples
        --------
        ``%hub_discover pump.* --wait 5``, or ``channels = %hub_discover``
        """
        options = parse_argstring(self.hub_discover, line)
        if not 0 <= options.wait < float("inf"):
            raise UsageError(f"%hub_discover --wait takes seconds, not {options.wait:g}")
        hub = self.session.hub(options.name)
        deadline = time.monotonic() + options.wait
        while not (found := hub.channels(options.pattern)) and time.monotonic() < deadline:
            time.sleep(LOOK_INTERVAL)
        meter = self._meters.setdefault(options.name, RateMeter(options.name))
        measured = {channel.name: meter.measure(channel.name) for channel in found}
        return ChannelTable(found, {name: rate for name, rate in measured.items() if rate is not None})

    @magic_arguments()
    @argument("channel", help="name of the channel")
    @broker_name()
    @line_magic
    @one_line_errors
    def hub_info(self, line: str) -> ChannelReport:
        """Show everything about one channel: schema, ring, producer, readers and their lag.

        Examples
        --------
        ``%hub_info pump.pressure``
        """
        options = parse_argstring(self.hub_info, line)
        info = self.session.hub(options.name).find(options.channel)
        try:
            found = diagnose(info.name, segment_directory(options.name))
        except LabHubError:
            found = None  # it is on another machine, or ended a moment ago
        return ChannelReport(info, found)

    @magic_arguments()
    @argument("channel", help="name of the channel")
    @argument("-n", type=int, default=10, metavar="N", dest="slots", help="so many slots; 10 unless given")
    @broker_name()
    @line_magic
    @one_line_errors
    def hub_tail(self, line: str) -> Tail:
        """Show the newest slots of a channel. Nobody who reads it is disturbed.

        Examples
        --------
        ``%hub_tail pump.pressure -n 5``
        """
        options = parse_argstring(self.hub_tail, line)
        if options.slots < 1:
            raise UsageError(f"%hub_tail -n takes a number of slots, not {options.slots}")
        return Tail(self.session.hub(options.name)[options.channel].snapshot(last=options.slots))

    @magic_arguments()
    @argument("channel", help="name of the channel")
    @argument("--fields", nargs="+", metavar="FIELD", help="what to draw of it; everything unless given")
    @argument("--window", type=float, default=10.0, metavar="S", help="how much to show, in seconds; 10 unless given")
    @broker_name()
    @line_magic
    @one_line_errors
    def hub_plot(self, line: str) -> object:
        """Draw a channel, live. The plot never slows its producer, and goes on while cells run.

        Examples
        --------
        ``%hub_plot pump.pressure --window 30``
        """
        options = parse_argstring(self.hub_plot, line)
        hub = self.session.hub(options.name)
        hub.find(options.channel)
        plot = getattr(hub[options.channel], "plot", None)
        if plot is None:
            raise UsageError("%hub_plot: this labhub has no live plot; %hub_tail shows the newest slots as text")
        return plot(*(options.fields or ()), window=options.window)
