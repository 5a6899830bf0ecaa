"""``%%hub_producer`` and ``%hub_producers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError
from IPython.core.magic import cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from labhub.errors import LabHubError
from labhub.notebook.display import Text
from labhub.notebook.display_producers import ProducerTable
from labhub.notebook.magics.common import SessionMagics, checked_action, one_line_errors, uninterrupted
from labhub.runtime import find_live

if TYPE_CHECKING:
    from labhub.notebook.background import BackgroundProducer

ACTIONS = ("list", "stop", "restart", "logs", "traceback")


@magics_class
class ProducerMagics(SessionMagics):
    """The magics about background producers; each is a parse, one call and a display."""

    @magic_arguments()
    @argument("name", help="what to call it")
    @argument("--restart", action="store_true", help="stop the one of this name first if it is running")
    @cell_magic
    @one_line_errors
    @uninterrupted
    def hub_producer(self, line: str, cell: str) -> BackgroundProducer:
        """Run the cell in the background, in a kernel of its own, and return at once.

        An Interrupt of the notebook leaves it running. It ends with its cell, with %hub_producers stop, and with the
        notebook's kernel; each time its channels close. It has the notebook's working directory, import path and
        environment, but none of its variables: {name} and $name are expanded in the line above, never in the cell.

        Examples
        --------
        A whole cell::

            %%hub_producer pump
            import labhub, time
            with labhub.connect().producer("pump.pressure", like=0.0, units="bar") as p:
                while True:
                    p.write(gauge.read())
                    time.sleep(0.01)
        """
        options = parse_argstring(self.hub_producer, line)
        if not cell.strip():
            raise UsageError("%%hub_producer needs a cell to run")
        return self.session.producers.start(options.name, cell, options.restart)

    @magic_arguments()
    @argument("action", nargs="?", default="list", metavar="|".join(ACTIONS), help="what to do; list unless given")
    @argument("name", nargs="?", help="of the producer; stop without a name stops all")
    @argument("-n", type=int, default=50, metavar="N", dest="lines", help="so many lines of its log; 50 unless given")
    @line_magic
    @one_line_errors
    @uninterrupted
    def hub_producers(self, line: str) -> object:
        """List this notebook's background producers, stop or restart them, show what one printed or why it failed.

        Examples
        --------
        ``%hub_producers``, or ``%hub_producers stop pump``
        """
        options = parse_argstring(self.hub_producers, line)
        action = checked_action("hub_producers", options.action, ACTIONS)
        if action == "list" or (action == "stop" and options.name is None):
            if action == "stop":
                self.session.producers.stop()
            return ProducerTable.of(self.session.producers, self._channels())
        producer = self.session.producers[self._named(action, options.name)]
        match action:
            case "stop":
                producer.stop()
                return producer
            case "restart":
                return self.session.producers.restart(producer.name)
            case "logs":
                return Text(producer.log(options.lines) or f"{producer.name} has printed nothing")
            case _:
                return Text(producer.traceback or producer.error or f"{producer.name} has not failed")

    def _named(self, action: str, name: str | None) -> str:
        if name is not None:
            return name
        names = [producer.name for producer in self.session.producers]
        if len(names) == 1:
            return names[0]
        raise UsageError(f"%hub_producers {action}: which one? {', '.join(names) or 'There is none'}")

    def _channels(self) -> dict[int, list[str]]:
        """Names of the channels by the pid of their producer; nothing without a broker."""
        found: dict[int, list[str]] = {}
        if len(self.session.producers) and find_live():
            try:
                for channel in self.session.hub("default").channels():
                    found.setdefault(channel.producer_pid, []).append(channel.name)
            except LabHubError:
                return {}
        return found
